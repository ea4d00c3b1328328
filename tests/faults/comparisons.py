"""Lists of SAEs that cannot be compared, and settings of `compare` that make no sense."""

from pathlib import Path
from typing import Any

import yaml
from faults.faults import Fault, Place

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

HOOK = "blocks.1.hook_resid_post"
OURS = ("hook_name", "test_with_padding")


def comparison(place: Place, *options: str, **settings: Any) -> list[str]:
    """Return the arguments that compare SAEs on the place's data."""
    data = {n: v for n, v in place.config["data"]["init_args"].items() if n not in OURS}
    right: dict[str, Any] = {"saes": [given(place.sae)], "output": str(place.folder.parent / "out")}
    settings["data"] = data | settings.get("data", {})
    kept = {name: value for name, value in (right | settings).items() if value is not ...}
    return ["compare", "--config", str(place.write("c.yaml", yaml.safe_dump(kept))), *options]


def given(path: Path, **settings: Any) -> dict[str, Any]:
    return {"path": str(path), "hook_name": HOOK} | settings


def with_list(name: str, says: str, *more: dict[str, Any]) -> Fault:
    """Return the fault of a list that goes on after one good SAE."""
    return Fault(name, lambda place: comparison(place, saes=[given(place.sae), *more]), says)


def with_settings(name: str, says: str, **settings: Any) -> Fault:
    return Fault(name, lambda place: comparison(place, **settings), says)


def twice(place: Place) -> list[str]:
    other = place.copy_of(place.sae)
    return comparison(place, saes=[given(place.sae, name="a"), given(other, name="a")])


def copied(place: Place) -> list[str]:
    return comparison(place, saes=[given(place.sae), given(place.copy_of(place.sae))])


def of_another_model(place: Place) -> list[str]:
    other = save_sae(new_sae("topk", d_in=16, d_sae=48, k=4), place.folder / "narrow")
    return comparison(place, saes=[given(place.sae), given(other)])


def of_another_hook(place: Place) -> list[str]:
    sae = new_sae("topk", d_in=32, d_sae=48, k=4)
    other = save_sae(sae, place.folder / "deep", {"hook_name": "blocks.2.hook_resid_post"})
    return comparison(place, saes=[given(place.sae), given(other)])


def repeats_at_two_hooks(place: Place) -> list[str]:
    sae = new_sae("topk", d_in=32, d_sae=48, k=4, seed=1)
    other = given(save_sae(sae, place.folder / "deep"), hook_name="blocks.0.hook_resid_post")
    return comparison(place, saes=[given(place.sae, group="a"), other | {"group": "a"}])


def without_hook(place: Place) -> list[str]:
    return comparison(place, saes=[{"path": str(place.sae)}])


def on_a_file(place: Place) -> list[str]:
    return comparison(place, output=str(place.write("taken", "text")))


SETTINGS: dict[str, tuple[Any, ...]] = {
    "n_nulls": (-1, 0.5, None),
    "n_subsamples": (0, "many"),
    "n_extreme": (-1,),
    "accelerator": ("tpu9",),
    "saes": ([], "all", ..., [3], None),
    "metrics": ([{"class_path": "saerepgeo.metrics.TwoN"}], "TwoNN"),
}
NEW = {"architecture": "topk", "d_in": 32, "d_sae": 96, "hook_name": HOOK}

FAULTS = [
    Fault("two SAEs of one name", twice, "names of their own, got a 2 times"),
    Fault("one SAE twice", copied, "own-sae has the files of sae"),
    Fault("an SAE of another model", of_another_model, "narrow: .*width 16"),
    Fault("an SAE of another hook", of_another_hook, "deep: .*blocks.2.hook_resid_post"),
    Fault("repeats at two hooks", repeats_at_two_hooks, "`group` a must be of SAEs at one hook"),
    Fault("no hook", without_hook, "SAE sae must have a hook.*`hook_name`"),
    Fault("output is a file", on_a_file, "taken` could not be written"),
    with_list("a hook that is none", "blocks.9", NEW | {"hook_name": "blocks.9.hook_resid_post"}),
    with_list("two sources", "exactly one of", NEW | {"path": "sae"}),
    with_list("a release that none is", "release", {"release": "gpt3.*", "sae_id": "x"}),
    with_list("a bad expression", "regular expression", {"release": "gpt2(", "sae_id": "x"}),
    with_list("an empty group", "group", NEW | {"group": ""}),
    with_list("a misspelt setting of an SAE", "did you mean", {"pth": "sae"}),
    *(
        with_settings(f"{name} {value!r}", name, **{name: value})
        for name, values in SETTINGS.items()
        for value in values
    ),
    with_settings("a misspelt setting", "did you mean `n_nulls`", n_null=3),
    with_settings("a misspelt concept", "dayz", data={"concepts": ["dayz"]}),
    with_settings("text that is not there", "none.txt", data={"text": "none.txt"}),
    with_settings("a hook of the data", "hook_name", data={"hook_name": HOOK}),
]
