"""What a cell of an experiment came to: figures on held-out text and on labeled points, as JSON."""

import statistics
import time
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from saerepgeo import geometry
from saerepgeo.callbacks.lm_loss import recovery_figures
from saerepgeo.cases.separability.losses import relative_gromov_wasserstein
from saerepgeo.cases.separability.validation import ReconstructionFigures
from saerepgeo.data.prompts import ConceptPrompts
from saerepgeo.experiment.cells import NAN, RECONSTRUCTION, TEXT, write_result
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import ActivationBatch

_shared_lm = lru_cache(maxsize=1)(FrozenLM.load)
"""Loads the model once for all cells of a process."""


class CellResult(Callback):
    """Write `{"about": …, "rows": […], "sum": …}` when training has reached its last step.

    One row for held-out text (reconstruction, l0, dead latents, cross entropy and divergence
    recovered) and one for each concept on training points, held-out prompts and held-out items.
    Every row repeats `about`, what the cell is; `sum` is a checksum of both. The language model's
    losses are of `n_contexts` held-out contexts; 0 leaves them out. A run that stopped early writes
    nothing.
    """

    def __init__(self, path: str, about: dict[str, Any], n_contexts: int = 16) -> None:
        self.path, self.about, self.n_contexts = path, dict(about), n_contexts
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
            write_result(self.path, self.about, rows)

    def _rows(self, trainer: Trainer, module: Any) -> list[dict[str, Any]]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        sae, device = module.sae, module.device
        before = module.source.build(module.hparams["seed"]).to(device).eval()
        was_training = sae.training
        sae.eval()
        text = {"split": TEXT, "concept": TEXT} | text_row(sae, data.val_dataloader()[0])
        text["mse_before"] = text_row(before, data.val_dataloader()[0])["mse"]
        text["steps"] = trainer.global_step
        # no steps where a run resumed at its end
        text["seconds_per_step"] = statistics.median(self._step_seconds or [NAN])
        if self.n_contexts:
            h = data.hparams
            about_lm = (h["lm"], h["hook_name"], h["lm_dtype"], str(device), h["center_residuals"])
            tokens = data.heldout_contexts()[: self.n_contexts]
            lm = partial(_shared_lm, *about_lm)
            text |= recovery_figures(lm, data.lm_settings, tokens, sae, device)
        rows = [text]
        for split, points in data.points._asdict().items():
            points = points._replace(residuals=points.residuals.to(device))
            found = concept_rows(sae, before, points, data.prompts)
            rows += [{"split": split} | row for row in found]
        sae.train(was_training)
        return rows


@torch.no_grad()
def text_row(sae: SAEModel, batches: Iterable[ActivationBatch]) -> dict[str, Any]:
    """Return mse, fvu, relative_reconstruction_bias, l0 and dead_fraction on background text."""
    figures = ReconstructionFigures(sae.d_sae)
    n_points = 0
    for batch in batches:
        figures.to(batch.residuals.device).add(batch.residuals, sae(batch.residuals))
        n_points += len(batch.labels)
    found = figures.compute()
    names = (*RECONSTRUCTION, "dead_fraction")
    return {"n_points": n_points} | {name: float(found[name]) for name in names}


@torch.no_grad()
def concept_rows(
    sae: SAEModel, before: SAEModel, points: ActivationBatch, prompts: ConceptPrompts
) -> list[dict[str, Any]]:
    """Return one row for each concept that has points: reconstruction and separability.

    `aedp` (units of the residuals), `relative_aedp` and `fisher_ratio` are of effective latents,
    `aedp_raw` of the latents as they are; `gromov_wasserstein` is GW(D, D₀)/mean(D₀²) between the
    distances of the items' centroids now and under the SAE `before`. `…_before` are that SAE's
    figures. What is undefined (fewer than two items, no scatter) is NaN.
    """
    rows = []
    for number, (concept, first) in enumerate(zip(prompts, prompts.first_item_ids, strict=True)):
        chosen = points.concepts == number
        if not bool(chosen.any()):
            continue
        residuals = points.residuals[chosen]
        labels = (points.labels[chosen] - first).to(residuals.device)
        (now, centers), (then, centers_then) = (
            _figures(each, residuals, labels, len(concept.items)) for each in (sae, before)
        )
        row = {"concept": concept.name, "n_points": len(labels)} | now
        row["gromov_wasserstein"] = _transport(centers, centers_then)
        row |= {f"{name}_before": then[name] for name in ("mse", "aedp", "relative_aedp")}
        rows.append(row)
    return rows


def _figures(
    sae: SAEModel, residuals: Tensor, labels: Tensor, n_items: int
) -> tuple[dict[str, Any], Tensor]:
    out = sae(residuals)
    reconstruction = ReconstructionFigures(sae.d_sae).to(residuals.device)
    reconstruction.add(residuals, out)
    found = reconstruction.compute()
    moments = geometry.class_moments(sae.effective_latents(out.latents), labels, n_items)
    raw = geometry.class_moments(out.latents, labels, n_items)
    centers = geometry.centroids(moments)
    figures = {name: found[name] for name in RECONSTRUCTION} | {
        "aedp": geometry.average_pairwise_distance(centers),
        "aedp_raw": geometry.average_pairwise_distance(geometry.centroids(raw)),
        "relative_aedp": geometry.relative_aedp(moments),
        "fisher_ratio": geometry.fisher_ratio(moments),
    }
    n_seen = int((moments.counts > 0).sum())
    return {"n_items": n_seen} | {name: float(x) for name, x in figures.items()}, centers


def _transport(centers: Tensor, before: Tensor) -> float:
    distances, original = map(geometry.pairwise_distances, (centers, before))
    if len(original) < 2 or not bool(original.max() > 0):
        return NAN
    return float(relative_gromov_wasserstein(distances, original).value)
