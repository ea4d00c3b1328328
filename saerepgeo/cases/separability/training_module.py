"""The training of one SAE or many on the same batches, each as if it were alone."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from saerepgeo.cases.separability.optimization import adam, clip_gradients_
from saerepgeo.cases.separability.trained_sae import TrainedSAE, TrainingStep, measured
from saerepgeo.cases.separability.validation import N_LOADERS
from saerepgeo.types import ActivationBatch


class TrainingModule(LightningModule):
    """Train every SAE of `trained` by its own loss, clipping, schedule and statistics.

    One whose loss is no longer finite is left out while others go on; else the run ends. Keys of
    logged values and checkpoints begin with the SAE's name; the only SAE of a module has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_out: list[str] = []

    @property
    def trained(self) -> Mapping[str, TrainedSAE]:
        """The SAEs by name."""
        raise NotImplementedError

    def check(self, stage: str) -> list[str]:
        """Refuse, before weights are read, what does not belong to the data; say what differs."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Check, and say what was noticed."""
        for remark in dict.fromkeys(self.check(stage)):
            rank_zero_info(remark)

    def training_step(
        self, batch: ActivationBatch | dict[str, ActivationBatch], batch_idx: int
    ) -> Tensor:
        """Return the sum of the losses, and log their parts; ValueError where none is finite."""
        by_hook = batch if isinstance(batch, dict) else dict.fromkeys(self._data.hook_names, batch)
        about = self._data.n_labeled, self.global_step, self.trainer.world_size
        steps = {name: x.step(by_hook[str(x.hook_name)], *about) for name, x in self._going_on()}
        found = torch.stack([step.numbers for step in steps.values()]).tolist()  # one wait for all
        for (name, step), numbers in zip(list(steps.items()), found, strict=True):
            if (broken := self.trained[name].read(numbers, self.global_step)) is not None:
                self._leave_out(name, broken, is_last=len(steps) == 1)
                del steps[name]
            else:
                self._log_step(name, step)
        if len(self.trained) > 1:
            fvu = torch.stack([step.logged["fvu"] for step in steps.values()]).mean()
            self.log("train/fvu", fvu, prog_bar=True, logger=False)
        return torch.stack([step.loss for step in steps.values()]).sum()

    def _leave_out(self, name: str, broken: str, is_last: bool) -> None:
        """Train on without an SAE; raise ValueError where no other is left, or other processes."""
        whose = f"SAE {name}: " if name else ""
        if is_last or self.trainer.world_size > 1:
            raise ValueError(
                f"{whose}{broken}; lower `lr` or `weight` and go on from the last checkpoint, "
                "which is from before"
            )
        rank_zero_info(f"{whose}{broken}; it is left out from here on: lower its `lr` or `weight`")
        self.left_out.append(name)
        for parameter in self.trained[name].parameters():
            parameter.grad = None  # of batches before, where gradients accumulate

    def _log_step(self, name: str, step: TrainingStep) -> None:
        group = 2 * list(self.trained).index(name)  # each SAE has one of biases as well
        rate = self.trainer.optimizers[0].param_groups[group]["lr"]
        for key, value in (step.logged | {"lr": rate}).items():
            is_shown = not name and key in ("mse", "separability")
            self.log(under(name, f"train/{key}"), value, prog_bar=is_shown)

    def validation_step(
        self, batch: ActivationBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add a batch of held-out text, prompts or items to the figures of its hook's SAEs."""
        hook, part = divmod(dataloader_idx, N_LOADERS)
        for _, trained in self._going_on():
            if trained.hook_name == self._data.hook_names[hook]:
                trained.validate(batch, part)

    def on_validation_epoch_end(self) -> None:
        """Log every figure of the validation and forget its points."""
        for name, trained in self._going_on():
            figures = {under(name, key): x for key, x in trained.figures.compute().items()}
            if self.trainer.sanity_checking:  # Lightning drops what is logged before step 0
                for logger in self.loggers:
                    logger.log_metrics({k: float(v) for k, v in figures.items()}, self.global_step)
            for key, value in figures.items():
                self.log(key, value, prog_bar=key in ("val/mse", "val/aedp"))
            trained.figures.reset()

    def configure_optimizers(self) -> Any:
        """Return Adam; each SAE's rate with its warm-up, plateau, and linear decay at the end."""
        # a checkpoint's buffers are back by now, and the rates depend on them
        unmeasured = [trained for trained in self.trained.values() if not trained.is_measured]
        statistics = measured(self._data) if unmeasured else {}
        for trained in unmeasured:
            hook = str(trained.hook_name)
            trained.measure(statistics[hook], self._data.points_by_hook[hook].train)
        groups, factors = [], []
        n_steps = self.trainer.estimated_stepping_batches
        for trained in self.trained.values():
            own, factor = trained.parameter_groups(), trained.rate_factor(n_steps)
            groups += own
            factors += [factor] * len(own)
        optimizer = adam(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Take out of decoders' gradients what the rescaling of their rows would undo."""
        for _, trained in self._going_on():
            trained.before_step()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each SAE's gradient as the trainer is told; log the norm before clipping."""
        for name, trained in self._going_on():
            norm = clip_gradients_(trained.sae, gradient_clip_val, gradient_clip_algorithm)
            if norm is not None:
                self.log(under(name, "train/gradient_norm"), norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then bring the decoder rows back to the norm they had."""
        super().optimizer_step(*args, **kwargs)
        for _, trained in self._going_on():
            trained.after_step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what no buffer holds."""
        checkpoint["left_out"] = list(self.left_out)
        for name, trained in self.trained.items():
            checkpoint[under(name, "transport_plans")] = dict(trained.transport_plans)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on as the checkpoint says; one of before transport plans were kept has none."""
        self.left_out = list(checkpoint.get("left_out", ()))
        for name, trained in self.trained.items():
            trained.resume(checkpoint.get(under(name, "transport_plans"), {}))

    def _going_on(self) -> Iterator[tuple[str, TrainedSAE]]:
        return ((name, x) for name, x in self.trained.items() if name not in self.left_out)

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]


def under(name: str, key: str) -> str:
    """Return the key of what belongs to the SAE `name`; that of the only SAE has none."""
    return f"{name}/{key}" if name else key
