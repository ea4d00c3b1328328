"""Checkpoints that are damaged, foreign, malicious, or of another run."""

import copy
import os
import pickle
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from faults.faults import Fault, Place

Spoil = Callable[[Path], Any]
NAMES = ("epoch=0-step=2.ckpt", "last.ckpt")


def trained(place: Place) -> Path:
    """Return a folder with the checkpoints of two steps of the working configuration."""
    config = copy.deepcopy(place.config)
    config["trainer"]["logger"] = False
    into(config, Path("."))
    return _trained(yaml.safe_dump(config))


@cache
def _trained(text: str) -> Path:
    from saerepgeo.cli import main

    folder, config = Path(tempfile.mkdtemp()), yaml.safe_load(text)
    into(config, folder / "checkpoints")
    config["trainer"] |= {"max_steps": 2, "limit_val_batches": 0}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    with unheard():
        assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    return folder / "checkpoints"


def into(config: Any, folder: Path) -> None:
    """Set the folder of the checkpoints; leave out the export."""
    kept = [c for c in config["trainer"]["callbacks"] if "SAEExport" not in c["class_path"]]
    for callback in kept:
        callback["init_args"]["dirpath"] = str(folder)
    config["trainer"] |= {"callbacks": kept, "default_root_dir": str(folder.parent)}


@contextmanager
def unheard() -> Iterator[None]:
    """Send what is said on the screen nowhere."""
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    random_state = torch.random.get_rng_state()
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        torch.random.set_rng_state(random_state)
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in enumerate(kept, start=1):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)


def resumed(place: Place, spoil: Spoil | None = None, name: str = "last") -> list[str]:
    """Return the command that goes on from the checkpoints of the working configuration."""
    folder = Path(shutil.copytree(trained(place), place.folder / "checkpoints"))
    for file in NAMES if spoil is not None else ():
        spoil(folder / file)
    into(place.config, folder)
    return place.command("fit", "--ckpt_path", name if name == "last" else str(folder / name))


def changed(name: str, says: str, change: Callable[[Place], Any]) -> Fault:
    """Return the fault of going on after a change of settings."""

    def given(place: Place) -> Sequence[str]:
        resumed(place)
        change(place)
        return place.command("fit", "--ckpt_path", "last")

    return Fault(name, given, rf"belongs to another run: .*{says}.*--resume_changed")


def with_data(says: str, **settings: Any) -> Fault:
    return changed(f"other {', '.join(settings)}", says, lambda place: place.data(**settings))


def with_model(says: str, **settings: Any) -> Fault:
    return changed(f"other {', '.join(settings)}", says, lambda place: place.model(**settings))


def with_trainer(says: str, **settings: Any) -> Fault:
    return changed(f"other {', '.join(settings)}", says, lambda place: place.trainer(**settings))


def other_text(place: Place) -> Any:
    return place.data(text=str(place.write("text.jsonl", place.text.read_bytes() * 2)))


def other_sae(config: dict[str, Any]) -> Callable[[Place], Any]:
    """Change the SAE's config: another function of the same weights."""
    import json

    def change(place: Place) -> None:
        folder = place.copy_of(place.sae)
        for path in folder.rglob("cfg.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | config))
        place.model(sae={"path": str(folder)})

    return change


def other_lm(place: Place) -> Any:
    from safetensors.torch import load_file, save_file

    folder = place.copy_of(place.lm)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return place.data(lm=str(folder))


def other_prompts(place: Place) -> Any:
    import json

    found = {
        "months": ["January is cold.", "February is short.", "March is wet."] * 4,
        "days": ["Monday is first.", "Tuesday is next.", "Sunday is last."] * 4,
    }
    found = {n: {"items": [p.split()[0] for p in ps[:3]], "prompts": ps} for n, ps in found.items()}
    return place.data(prompts=str(place.write("prompts.json", json.dumps(found))))


def damaged(name: str, says: str, spoil: Spoil) -> Fault:
    """Return the fault of a checkpoint, named, that is spoilt."""
    return Fault(name, lambda place: resumed(place, spoil, "last.ckpt"), says)


def cut(share: float) -> Spoil:
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(share: float) -> Spoil:
    """Flip a bit at a share of the file's length."""

    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(len(content) * share)] ^= 4
        path.write_bytes(content)

    return spoil


def flip_weights(path: Path) -> None:
    """Flip a bit of the encoder, where nothing but the numbers changes."""
    content = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["state_dict"]["sae.sae.W_enc"]
    start = content.index(weights.numpy().tobytes())
    content[start + 401] ^= 64
    path.write_bytes(content)


def written(content: bytes) -> Spoil:
    return lambda path: path.write_bytes(content)


def without(*parts: str) -> Spoil:
    def spoil(path: Path) -> None:
        found = torch.load(path, weights_only=True)
        torch.save({name: value for name, value in found.items() if name not in parts}, path)

    return spoil


class RunsCode:
    """Unpickled, it would write a file into the working folder."""

    def __init__(self, function: Any = os.system, argument: str = "touch executed") -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> Any:
        return self.function, (self.argument,)


def hiding(value: Any, key: str = "callbacks") -> Spoil:
    def spoil(path: Path) -> None:
        torch.save(torch.load(path, weights_only=True) | {key: value}, path)

    return spoil


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def no_whole(name: str, spoil: Spoil, command: str = "validate") -> Fault:
    """Return the fault of `last` where a command that does not train finds none."""

    def given(place: Place) -> Sequence[str]:
        resumed(place, spoil)
        return place.command(command, "--ckpt_path", "last")

    return Fault(name, given, r"--ckpt_path last.*finds nothing")


WHOLE = "no whole checkpoint.*there is no whole one"
NO_CODE = "not read: it holds .*could run code"
CHANGED = [
    with_data("`data.hook_name` was .blocks.1", hook_name="blocks.0.hook_resid_post"),
    with_data("`data.batch_size` was 64 and is 32", batch_size=32),
    with_data("`data.concepts` was .*months.*days", concepts=["days", "months"]),
    with_data("`data.concepts`", concepts=["months"]),
    with_data("`data.seed` was 0 and is 1", seed=1),
    with_data("`data.context_size` was 16 and is 12", context_size=12),
    with_data("`data.concept_fraction`", concept_fraction=0.5),
    with_data("`data.heldout_items`", heldout_items=0.1),
    with_data("`data.heldout_prompts`", heldout_prompts=0.1),
    with_data("`data.heldout_text_fraction`", heldout_text_fraction=0.1),
    with_data("`data.window_steps`", window_steps=2),
    with_data("`data.n_lanes`", n_lanes=2),
    with_data("`data.lm_dtype`", lm_dtype="bfloat16"),
    with_data("`data.center_residuals`", center_residuals=True),
    with_data("`data.text`", text="sample"),
    with_data("`data.batch_size`.*`data.seed`", seed=3, batch_size=32),
    with_model("`model.lr` was 0.01 and is 0.001", lr=1e-3),
    with_model("`model.weight`", weight=0.25),
    with_model("`model.regularizer` was 'aedp' and is 'fisher'", regularizer="fisher"),
    with_model("`model.direction`", direction="decrease"),
    with_model("`model.target_scale`", target_scale=1.5),
    with_model("`model.betas`", betas=[0.8, 0.999]),
    with_model("`model.warmup_steps`", warmup_steps=4),
    with_model("`model.decay_fraction`", decay_fraction=0.5),
    with_model("`model.dead_after`", dead_after=10),
    with_model("`model.shuffle_labels`", shuffle_labels=True),
    with_model("`model.seed`", seed=1),
    with_trainer("`trainer.precision`", precision="bf16-mixed"),
    with_trainer("`trainer.gradient_clip_val` was 1.0 and is 2.0", gradient_clip_val=2.0),
    with_trainer("`trainer.gradient_clip_algorithm`", gradient_clip_algorithm="value"),
    with_trainer("`trainer.accumulate_grad_batches`", accumulate_grad_batches=2),
    changed("text of other contents", "`data.text`", other_text),
    changed("language model of other weights", "`data.lm`", other_lm),
    changed("other prompts of the same concepts", "`data.prompts`", other_prompts),
    changed("SAE with another k", "`model.sae` was 'topk", other_sae({"k": 5})),
    changed("SAE rescales", "`model.sae`", other_sae({"rescale_acts_by_decoder_norm": True})),
    changed(
        "new SAE",
        "`model.sae`",
        lambda place: place.model(
            sae={"architecture": "topk", "d_in": 32, "d_sae": 96, "options": {"k": 4}}
        ),
    ),
]
FAULTS: list[Fault] = [
    *CHANGED,
    damaged("empty", WHOLE, written(b"")),
    damaged("text", WHOLE, written(b"no checkpoint at all\n" * 99)),
    damaged("zeros", WHOLE, written(bytes(90_000))),
    damaged("pickle without zip", WHOLE, written(pickle.dumps({"state_dict": {}}))),
    damaged("pickle with code, without zip", WHOLE, written(pickle.dumps(RunsCode()))),
    damaged("cut at a hundredth", WHOLE, cut(0.01)),
    damaged("cut at half", WHOLE, cut(0.5)),
    damaged("cut before the end", WHOLE, cut(0.999)),
    damaged("a weight's bit flipped", "record.*damaged.*no whole one", flip_weights),
    *(damaged(f"a bit flipped at {s}", WHOLE, flip(s)) for s in (0.3, 0.5, 0.7, 0.97)),
    damaged("another zip", "is no checkpoint", other_zip),
    damaged("tensors without a run", "no state_dict", lambda path: torch.save({"a": 1}, path)),
    damaged("a list", "no state_dict", lambda path: torch.save([1, 2], path)),
    damaged("weights alone", "no optimizer_states", without("optimizer_states")),
    damaged("without loops", "no loops", without("loops")),
    damaged("missing", "there is no checkpoint", Path.unlink),
    damaged("an empty folder", "there is no checkpoint", as_folder),
    damaged("a FIFO", "there is no checkpoint", as_fifo),
    damaged("runs a command", NO_CODE, hiding(RunsCode())),
    damaged("evaluates", NO_CODE, hiding(RunsCode(eval, "open('executed', 'w')"))),
    damaged("executes", NO_CODE, hiding(RunsCode(exec, "open('executed', 'w')"), "loops")),
    damaged("writes by pathlib", NO_CODE, hiding(RunsCode(Path.touch, Path("executed")))),
    damaged("a class", NO_CODE, hiding(Place(Path(), Path(), Path(), Path()), "hyper_parameters")),
    Fault(
        "of two, the last cut",
        lambda place: resumed(place, lambda p: p.name == "last.ckpt" and cut(0.5)(p), "last.ckpt"),
        r"no whole checkpoint.*newest whole one is .*step=2.ckpt",
    ),
    no_whole("none to validate", Path.unlink),
    no_whole("all cut, to validate", cut(0.4)),
    no_whole("all with code, to validate", hiding(RunsCode())),
]
