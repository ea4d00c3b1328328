"""Settings of `experiment` that make no sense, and what lies in its folders."""

from typing import Any

import yaml
from faults.faults import Fault, Place

RIGHT: dict[str, Any] = {
    "regularizers": ["fisher"],
    "doses": [-0.5, 0.5],
    "seeds": [0, 1],
    "n_processes": 1,
    "n_contexts": 0,
}


def experiment(place: Place, *options: str, **settings: Any) -> list[str]:
    """Return the arguments that run an experiment of the place's configuration."""
    base = place.write("base.yaml", yaml.safe_dump(place.config))
    given = RIGHT | {"base": str(base), "output": str(place.folder / "results")} | settings
    kept = {name: value for name, value in given.items() if value is not ...}
    return ["experiment", "--config", str(place.write("e.yaml", yaml.safe_dump(kept))), *options]


def with_settings(name: str, says: str, **settings: Any) -> Fault:
    """Return the fault of settings of the experiment; `...` leaves one out."""
    return Fault(name, lambda place: experiment(place, **settings), says)


def with_base(name: str, says: str, content: str | bytes) -> Fault:
    """Return the fault of the content of the base configuration."""
    return Fault(
        name, lambda place: experiment(place, base=str(place.write("own.yaml", content))), says
    )


def with_file(name: str, says: str, output: str) -> Fault:
    """Return the fault of an `output` where a file `taken` stands."""

    def given(place: Place) -> list[str]:
        place.write("taken", "text")
        return experiment(place, output=str(place.folder / output))

    return Fault(name, given, says)


NAN, INFINITY = float("nan"), float("inf")
SETTINGS = {
    "seeds": ([], [1, 1], [-1], [2**32], [0.5], None, "one"),
    "doses": ([], [NAN], [INFINITY], [-INFINITY], [0.0, 1.0], [1.0, 1.0], None, ["much"]),
    "shuffled_doses": ([NAN], [INFINITY], [0.0], [0.5, 0.5], "all"),
    "regularizers": ([], ["aepd"], ["fisher", "fisher"], "fisher", None, [1]),
    "n_processes": (0, -1, 1.5, "two", None),
    "n_threads": (0, -2, 0.5, "all"),
    "gpus_per_cell": (-1.0, NAN, INFINITY, "all"),
    "address": ("", " ", 1),
    "max_attempts": (0, -1, None, 1.5),
    "checkpoint_every": (0, -1, None, "often"),
    "n_contexts": (-1, 0.5, None),
    "separability": ("relative_aepd", "mse", None, 3),
    "error": ("msee", "aedp", None),
    "settings": ([1], "trainer.max_steps", {"trainer.max_steps": 0}),
    "base": ("none.yaml", "", "."),
}
TAKEN = ("trainer.callbacks", "trainer.default_root_dir", "seed_everything", "ckpt_path", "config")
TAKEN += ("data.init_args.seed", "model.init_args.weight", "model.init_args.direction")
TAKEN += ("model.init_args.regularizer", "model.init_args.shuffle_labels", "model.init_args.seed")
CELLS = {
    "a misspelt setting of a cell": ("max_stepz", {"trainer.max_stepz": 4}),
    "a misspelt section of a cell": ("trainers", {"trainers.max_steps": 4}),
    "text for a number of a cell": ("max_steps", {"trainer.max_steps": "many"}),
    "cells without an end": ("max_steps", {"trainer.max_steps": -1}),
    "no held-out items": ("heldout_items", {"data.init_args.heldout_items": 0.0}),
    "a share of a cell": ("heldout_items", {"data.init_args.heldout_items": 2.0}),
    "a learning rate of a cell": ("lr", {"model.init_args.lr": -1.0}),
    "a hook of a cell": ("blocks.9", {"data.init_args.hook_name": "blocks.9.hook_resid_post"}),
    "an SAE of a cell": ("sae", {"model.init_args.sae.path": "no/such"}),
    "a concept of a cell": ("monthz", {"data.init_args.concepts": ["monthz"]}),
    "prompts of a cell": ("no.json", {"data.init_args.prompts": "no.json"}),
    "a model of a cell": ("no/such", {"data.init_args.lm": "no/such"}),
    "a class of a cell": ("Nothing", {"model.class_path": "saerepgeo.Nothing"}),
    "a nested setting that is taken": ("trainer.callbacks", {"trainer": {"callbacks": []}}),
}
BASES: dict[str, str | bytes] = {
    "empty": "",
    "a list": "- 1\n- 2\n",
    "a number": "4",
    "a syntax error": "trainer: {max_steps: 3\nmodel: [",
    "binary": bytes(range(256)),
    "latin-1": "trainer: {default_root_dir: caf\xe9}".encode("latin-1"),
    "a misspelt section": "trainerr: {max_steps: 3}\n",
    "no model": "trainer: {max_steps: 3}\n",
    "a model that is a list": "model: [1]\n",
    "data of text": "data: text\n",
    "settings twice": "trainer: {max_steps: 3}\ntrainer: {max_steps: 4}\n",
}

FAULTS = [
    *(
        with_settings(f"{name} {value!r}", name, **{name: value})
        for name, values in SETTINGS.items()
        for value in values
    ),
    *(with_settings(f"settings {name}", f"`{name}`", settings={name: 1}) for name in TAKEN),
    *(with_settings(name, says, settings=value) for name, (says, value) in CELLS.items()),
    *(with_base(f"base {name}", "own.yaml|trainerr|model|data", c) for name, c in BASES.items()),
    *(with_settings(f"no {name}", name, **{name: ...}) for name in ("base", "output", "seeds")),
    with_file("output is a file", "`output`.*taken", "taken"),
    with_file("output lies under a file", "`output`.*taken", "taken/deep/er"),
    with_settings("two devices", "must be one device here", settings={"trainer.devices": 2}),
    with_settings("a misspelt option in the file", "sedes", sedes=[1]),
    Fault("a misspelt option", lambda place: experiment(place, "--sedes", "[1]"), "sedes"),
    Fault("no configuration", lambda _: ["experiment", "--config", "none.yaml"], "none.yaml"),
    Fault("no options at all", lambda _: ["experiment"], "base"),
]
