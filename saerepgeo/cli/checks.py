"""What the command line checks before a run writes anything."""

import os
import re
from collections.abc import Sequence
from numbers import Real
from typing import Annotated, Any, Literal

from lightning.fabric.plugins.environments import (
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from saerepgeo.bounds import (
    Bound,
    Count,
    Endless,
    NotNegative,
    Positive,
    PositiveInt,
    check_settings,
)
from saerepgeo.lm.precision import has_native_bfloat16


def _is_devices(value: Any) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"auto|-1|\d+(,\d*)*", value) is not None


Devices = Annotated[Any, Bound("how many, a list of which, or auto", _is_devices)]
Seed = Annotated[Any, Bound("an integer in [0, 2^32)", lambda x: 0 <= int(x) < 2**32)]


class TrainerSettings:
    """Bounds of Lightning's settings that it checks late, or not at all."""

    max_steps: Endless
    max_epochs: Endless | None
    min_steps: Count | None
    min_epochs: Count | None
    num_sanity_val_steps: Endless | None
    limit_train_batches: NotNegative | None
    limit_val_batches: NotNegative | None
    limit_test_batches: NotNegative | None
    val_check_interval: Positive | None
    check_val_every_n_epoch: PositiveInt | None
    log_every_n_steps: Count | None
    accumulate_grad_batches: PositiveInt
    gradient_clip_val: NotNegative | None
    gradient_clip_algorithm: Literal["norm", "value"] | None
    num_nodes: PositiveInt
    devices: Devices


class RunSettings:
    """Bounds of what is no one's own setting."""

    seed_everything: Seed


def check_parsed(settings: Any) -> None:
    """Check what a command line says before anything is made of it; ValueError in one line."""
    check_settings(RunSettings, {"seed_everything": settings["seed_everything"]})
    model = settings.get("model")
    sae = model.get("init_args", {}).get("sae") if hasattr(model, "get") else None
    if isinstance(sae, str | Real):
        raise ValueError(f"`model.init_args.sae` must be settings of its own, as path, got {sae!r}")
    _check_trainer(settings["trainer"])


def names_processes(trainer: Any) -> bool:
    """Return whether settings of the trainer, or who started this process, ask for several."""
    if trainer["strategy"] != "auto" or int(trainer["num_nodes"]) > 1:
        return True
    is_slurm = SLURMEnvironment.detect() and int(os.environ.get("SLURM_NTASKS", 1)) > 1
    return is_slurm or any(each.detect() for each in (TorchElasticEnvironment, MPIEnvironment))


def _check_trainer(settings: Any) -> None:
    if not hasattr(settings, "as_dict"):
        raise ValueError(f"`trainer` must be settings of its own, NAME: VALUE, got {settings}")
    is_word = {"val_check_interval"}  # a time, by Lightning's own rules
    given = {
        name: value
        for name, value in settings.as_dict().items()
        if name not in is_word or isinstance(value, Real)
    }
    check_settings(TrainerSettings, given, prefix="trainer.")
    if (precision := str(given.get("precision"))) in ("16", "16-mixed", "16-true"):
        raise ValueError(
            "`trainer.precision` must be 32-true or bf16-mixed, for float16 does not hold the "
            f"squares of residuals, got {precision}"
        )
    callbacks = given["callbacks"] or []
    _check_callbacks(callbacks if isinstance(callbacks, list) else [callbacks])


def _check_callbacks(callbacks: Sequence[Any]) -> None:
    seen = set()
    for callback in callbacks:
        options = dict(callback.get("init_args") or {})
        name, folder = callback["class_path"].rsplit(".", 1)[-1], options.get("dirpath")
        if folder is not None:
            options = {"dirpath": os.path.abspath(folder), "filename": options.get("filename")}
        own = name, repr(sorted(options.items()))
        if own in seen:
            where = f" with `dirpath` {folder}: they would write the same files" if folder else ""
            raise ValueError(f"`trainer.callbacks` names {name} twice{where}")
        seen.add(own)


def check_run(
    trainer: Trainer, module: LightningModule, data: LightningDataModule | None, stage: str
) -> None:
    """Check settings against each other, as `trainer` will, before it writes or starts anything."""
    if data is None:
        raise ValueError("`data` is not given: add --config FILE, or --data CLASS_PATH")
    if trainer.strategy.root_device.type == "mps":
        raise ValueError(
            "`trainer.accelerator` must be cpu or gpu, for figures need float64, got mps: add "
            "--trainer.accelerator cpu"
        )
    if slow := _in_software(trainer, data):
        rank_zero_info(
            f"this {trainer.strategy.root_device.type} multiplies bfloat16 in software, many times "
            f"slower than float32: {slow} is not for speed here"
        )
    data.trainer = module.trainer = trainer
    trainer.datamodule = data  # type: ignore[attr-defined]
    data.setup(stage)
    check = getattr(module, "check", None)
    if check is not None:
        check(stage)
    if trainer.is_global_zero:
        data.prepare_data()


def _in_software(trainer: Trainer, data: LightningDataModule) -> str:
    """Return the settings that ask for bfloat16 where the device has no instructions for it."""
    device = trainer.strategy.root_device
    if device.type not in ("cpu", "cuda") or has_native_bfloat16(device):
        return ""
    asked = {
        "`trainer.precision` bf16-mixed": trainer.precision == "bf16-mixed",
        "`lm_dtype` bfloat16": data.hparams.get("lm_dtype") == "bfloat16",
    }
    return " and ".join(name for name, is_asked in asked.items() if is_asked)
