"""At the end of training: the SAEs in SAELens format, next to the checkpoints."""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from saerepgeo.bounds import Text, check_settings
from saerepgeo.cases.separability.trained_sae import TrainedSAE
from saerepgeo.cases.separability.training_module import TrainingModule, under
from saerepgeo.files import check_folder
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.parallel.tensor_parallel import unshard

RECORDED = ("regularizer", "direction", "weight", "lr", "shuffle_labels")


class SAEExport(Callback):
    """Write the SAE into the folder `dirpath`, in `dtype` (float32, float16 or bfloat16).

    Each SAE of a family goes into the folder of its name in `dirpath`, unless it was left out.

    `with_training_form` adds SAELens' training form, in `training/`. `figures.json` holds the last
    validation's figures. Nothing is written when training stops by an error or a signal.
    """

    def __init__(
        self,
        dirpath: Text,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        with_training_form: bool = True,
    ) -> None:
        check_settings(SAEExport, locals())
        self.dirpath, self.dtype = Path(dirpath), dtype
        self.with_training_form = with_training_form

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_folder(self.dirpath)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.interrupted or trainer.global_step < trainer.max_steps:
            return
        module = cast(TrainingModule, pl_module)
        for name, trained in module.trained.items():
            model = unshard(trained.sae)  # every process gives its part
            if trainer.is_global_zero and name not in module.left_out:
                assert model is not None
                self._write(trainer, name, trained, model)

    def _write(self, trainer: Trainer, name: str, trained: TrainedSAE, model: SAEModel) -> None:
        record, dtype = training_record(trainer, trained), getattr(torch, self.dtype)
        start, folder = under(name, "val/"), self.dirpath / name
        figures = {
            key.removeprefix(under(name, "")): float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith(start)
        }
        save_sae(model, folder, record, dtype, self.with_training_form, figures)
        rank_zero_info(f"wrote the SAE to {folder} (SAELens format)")


def training_record(trainer: Trainer, trained: TrainedSAE) -> dict[str, Any]:
    """Return the metadata that SAELens expects, and how this SAE was trained."""
    data = trainer.datamodule.hparams  # type: ignore[attr-defined]
    centered = {"center_writing_weights": True} if data["center_residuals"] else {}
    return {
        "model_name": data["lm"],
        "hook_name": trained.hook_name,
        "context_size": data["context_size"],
        "prepend_bos": True,
        "exclude_special_tokens": True,
        "model_class_name": "HookedTransformer",
        "model_from_pretrained_kwargs": centered,
        "saerepgeo_training": {
            "steps": trainer.global_step,
            "points": trainer.global_step * data["batch_size"],
            **{name: data[name] for name in ("text", "concepts", "concept_fraction", "seed")},
            "precision": str(trainer.precision),
            **{name: getattr(trained.settings, name) for name in RECORDED},
        },
    }
