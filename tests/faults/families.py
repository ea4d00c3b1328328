"""Lists of SAEs that cannot be trained in one pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.faults import Fault, Place

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

HOOK, OTHER = "blocks.1.hook_resid_post", "blocks.0.hook_resid_post"
GOOD: dict[str, Any] = {"name": "good", "architecture": "topk", "d_in": 32, "d_sae": 64}
GOOD |= {"options": {"k": 4}}


def family(place: Place, saes: Any, command: str = "fit", **data: Any) -> list[str]:
    """Return the arguments of a fit of many SAEs."""
    place.config["model"] = {
        "class_path": "saerepgeo.cases.SAEFamilyModule",
        "init_args": {"saes": saes},
    }
    return place.data(**data).command(command)


def with_list(name: str, says: str, *saes: Any, command: str = "fit", **data: Any) -> Fault:
    return Fault(name, lambda place: family(place, list(saes), command, **data), says)


def with_second(name: str, says: str, /, **settings: Any) -> Fault:
    """Return the fault of a list of one good SAE and another."""
    return with_list(name, says, GOOD, GOOD | {"name": "bad"} | settings)


def of_folder(name: str, says: str, spoil: Callable[[Place], Path]) -> Fault:
    def given(place: Place) -> list[str]:
        return family(place, [GOOD, {"name": "bad", "path": str(spoil(place))}])

    return Fault(name, given, says)


def cut(place: Place) -> Path:
    folder = place.copy_of(place.sae)
    for path in folder.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    return folder


def narrow(place: Place) -> Path:
    return save_sae(new_sae("topk", d_in=16, d_sae=48, k=4), place.folder / "narrow")


def of_another_hook(place: Place) -> Path:
    sae = new_sae("topk", d_in=32, d_sae=48, k=4)
    return save_sae(sae, place.folder / "deep", {"hook_name": "blocks.2.hook_resid_post"})


def with_losses(place: Place) -> list[str]:
    place.config["trainer"]["callbacks"].append({"class_path": "saerepgeo.callbacks.LMLoss"})
    return family(place, [GOOD])


def divided(place: Place) -> list[str]:
    name = "lightning.pytorch.strategies.ModelParallelStrategy"
    return family(place.trainer(strategy={"class_path": name}, devices=2), [GOOD])


FAULTS = [
    with_list("a family of none", "`saes` must name SAEs to train, got none"),
    with_list("two SAEs of one name", "names of their own, got good 2 times", GOOD, GOOD),
    *(
        with_second(
            f"a name of {name!r}", "each of `saes` must have a `name` of letters", name=name
        )
        for name in (None, "a/b", "", "..", "a.b", "a b", "keys", "x" * 101, "é")
    ),
    with_list("an SAE without a name", "must have a `name` of letters", {"path": "."}),
    with_second("a misspelt setting", "saes", learning_rate=1),
    with_second("a rate below 0", "`saes.bad.lr` must be a finite number > 0, got -1", lr=-1.0),
    with_second("a seed of text", "saes.*seed", seed="one"),
    with_second("a regularizer of no kind", "saes.*regularizer", regularizer="mystery"),
    with_second("an SAE of no source", "SAE bad: `sae` must name exactly one", architecture=None),
    with_second("an SAE of another width", "SAE bad: .*width 16 .d_in.*have 32", d_in=16),
    with_second(
        "an unknown architecture", "SAE bad: `architecture` must be one of", architecture="mystery"
    ),
    with_second("too many active", "SAE bad: `k` must lie within 1..d_sae = 64", options={"k": 65}),
    with_second("a hook that is not read", "SAE bad: `hook_name` must be one of", hook_name=OTHER),
    with_second("a hook of no name", "`saes.bad.hook_name` must be text, not empty", hook_name=""),
    of_folder("a folder that is missing", "SAE bad: .*must be a folder", lambda place: Path("/no")),
    of_folder("a folder whose weights are cut", "SAE bad: .*must be whole", cut),
    of_folder("a folder of a narrow SAE", "SAE bad: .*width 16 .d_in.*have 32", narrow),
    of_folder(
        "a folder of another hook",
        "SAE bad: `hook_name` must be one of.*, got blocks.2",
        of_another_hook,
    ),
    with_list(
        "SAEs that say no hook where there are two",
        "SAE good: `hook_name` must be one of `data.hook_name`, .*, got None",
        GOOD,
        hook_name=[HOOK, OTHER],
    ),
    with_list(
        "a hook that no SAE reads",
        f"must hold hooks that an SAE reads, got {OTHER}, which none does",
        GOOD | {"hook_name": HOOK},
        hook_name=[HOOK, OTHER],
    ),
    with_list("hooks of none", "`hook_name` must be a hook or different ones", GOOD, hook_name=[]),
    with_list("one hook twice", "must be a hook or different ones", GOOD, hook_name=[HOOK, HOOK]),
    with_list(
        "a hook among others that the model has not got",
        "must name one of the layers 0 to 2",
        GOOD | {"hook_name": HOOK},
        GOOD | {"name": "deep", "hook_name": "blocks.7.hook_resid_post"},
        hook_name=[HOOK, "blocks.7.hook_resid_post"],
    ),
    with_list("a family that is tested", "`test` takes one SAE", GOOD, command="test"),
    Fault(
        "several hooks for one SAE",
        lambda place: place.data(hook_name=[HOOK]).command(),
        "must be one hook",
    ),
    Fault("losses of the language model for a family", with_losses, "LMLoss reads one SAE"),
    Fault("a family divided between devices", divided, "set `trainer.strategy` to ddp"),
    Fault("a family that is no list", lambda place: family(place, 3), "saes"),
]
