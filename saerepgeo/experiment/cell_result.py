"""One cell of an experiment: at the end of its training, its figures as JSON; all or nothing."""

import statistics
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from saerepgeo.callbacks.lm_loss import recovery_figures
from saerepgeo.experiment.evaluation import concept_rows, text_row
from saerepgeo.files import write_json
from saerepgeo.lm.frozen import FrozenLM


class CellResult(Callback):
    """Write `{"about": …, "rows": […]}` when training has reached its last step.

    One row for held-out text (reconstruction, l0, dead latents, cross entropy and divergence
    recovered) and one for each concept on training points, held-out prompts and held-out items.
    The file appears under its name only when it is whole; a run that stopped early writes nothing.

    Args:
        path: the file.
        about: what the cell is; repeated in every row.
        n_contexts: contexts of held-out text for the language model's losses; 0 leaves them out.
    """

    def __init__(self, path: str, about: dict[str, Any], n_contexts: int = 16) -> None:
        self.path, self.about, self.n_contexts = Path(path), dict(about), n_contexts
        self._step_seconds: list[float] = []
        self._started = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._step_seconds.append(time.perf_counter() - self._started)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.interrupted or trainer.global_step < trainer.max_steps:
            return
        rows = [self.about | row for row in self._rows(trainer, pl_module)]
        if trainer.is_global_zero:
            write_json(self.path, {"about": self.about, "rows": rows})

    def _rows(self, trainer: Trainer, pl_module: LightningModule) -> list[dict[str, Any]]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = pl_module
        sae = module.sae
        before = module.source.build(module.hparams["seed"]).to(pl_module.device).eval()
        was_training = sae.training
        sae.eval()
        seconds = statistics.median(self._step_seconds or [float("nan")])  # none if resumed at end
        text = {"split": "text", "concept": "text"} | text_row(sae, data.val_dataloader()[0])
        text |= {"mse_before": text_row(before, data.val_dataloader()[0])["mse"]}
        text |= {"steps": trainer.global_step, "seconds_per_step": seconds}
        if self.n_contexts:
            lm = partial(_shared_lm, *_lm_settings(data, pl_module))
            tokens = data.heldout_contexts()[: self.n_contexts]
            text |= recovery_figures(lm, data.lm_settings, tokens, sae, pl_module.device)
        rows = [text]
        for split, points in data.points._asdict().items():
            points = points._replace(residuals=points.residuals.to(pl_module.device))
            found = concept_rows(sae, before, points, data.prompts)
            rows += [{"split": split} | row for row in found]
        sae.train(was_training)
        return rows


def _lm_settings(data: Any, pl_module: LightningModule) -> tuple[Any, ...]:
    h = data.hparams
    return h["lm"], h["hook_name"], h["lm_dtype"], str(pl_module.device), h["center_residuals"]


@lru_cache(maxsize=1)
def _shared_lm(name: str, hook_name: str, dtype: Any, device: str, center: bool) -> FrozenLM:
    """Load the model once for all cells of a process."""
    return FrozenLM.load(name, hook_name, dtype, device, center)
