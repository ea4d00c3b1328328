"""What an SAE is worth on held-out text and on labeled points, as rows of a table."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from saerepgeo.data.prompts import ConceptPrompts
from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    class_moments,
    fisher_ratio,
    pairwise_distances,
    relative_aedp,
)
from saerepgeo.geometry.transport import gromov_wasserstein
from saerepgeo.metrics import (
    L0,
    DeadFraction,
    FractionVarianceUnexplained,
    MeanSquaredError,
    RelativeReconstructionBias,
)
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import ActivationBatch, Estimate, SparseLatents, to_dense

__all__ = ["concept_rows", "text_row"]


@torch.no_grad()
def text_row(sae: SAEModel, batches: Iterable[ActivationBatch]) -> dict[str, Any]:
    """Return mse, fvu, relative_reconstruction_bias, l0 and dead_fraction on background text."""
    recons_metrics = {
        "mse": MeanSquaredError(),
        "fvu": FractionVarianceUnexplained(),
        "relative_reconstruction_bias": RelativeReconstructionBias(),
    }
    latent_metrics = {"l0": L0(), "dead_fraction": DeadFraction(sae.d_sae)}
    n_points = 0
    for batch in batches:
        out = sae(batch.residuals)
        for metric in recons_metrics.values():
            metric.update(out.recons.float().cpu(), batch.residuals.cpu())
        for latent_metric in latent_metrics.values():
            latent_metric.update(_on_cpu(out.latents))
        n_points += len(batch.labels)
    metrics = {**recons_metrics, **latent_metrics}
    return {"n_points": n_points} | {k: float(m.compute()) for k, m in metrics.items()}


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
        labels = (points.labels[chosen] - first).cpu()
        now, moments = _figures(sae, residuals, labels, len(concept.items))
        then, moments_then = _figures(before, residuals, labels, len(concept.items))
        rows.append(
            {"concept": concept.name, "n_points": len(labels)}
            | now
            | {"gromov_wasserstein": _transport(moments, moments_then)}
            | {f"{name}_before": then[name] for name in ("mse", "aedp", "relative_aedp")}
        )
    return rows


def _figures(
    sae: SAEModel, residuals: Tensor, labels: Tensor, n_items: int
) -> tuple[dict[str, Any], ClassMoments]:
    out = sae(residuals)
    latents = _on_cpu(out.latents)
    raw = to_dense(latents)
    effective = to_dense(sae.effective_latents(out.latents)).cpu()
    moments = class_moments(effective, labels, n_items)
    recons, targets = out.recons.float().cpu(), residuals.cpu()
    reconstruction = {
        "mse": MeanSquaredError(),
        "fvu": FractionVarianceUnexplained(),
        "relative_reconstruction_bias": RelativeReconstructionBias(),
    }
    figures: dict[str, Any] = {"n_items": int((moments.counts > 0).sum())}
    for name, metric in reconstruction.items():
        metric.update(recons, targets)
        figures[name] = float(metric.estimate())
    l0 = L0()
    l0.update(latents)
    figures["l0"] = float(l0.estimate())
    aedp_of: dict[str, Estimate] = {
        "aedp": average_pairwise_distance(centroids(moments)),
        "aedp_raw": average_pairwise_distance(centroids(class_moments(raw, labels, n_items))),
        "relative_aedp": relative_aedp(moments),
        "fisher_ratio": fisher_ratio(moments),
    }
    return figures | {name: float(value) for name, value in aedp_of.items()}, moments


def _transport(now: ClassMoments, before: ClassMoments) -> float:
    distances, original = (pairwise_distances(centroids(m)) for m in (now, before))
    scale = original.square().mean()
    if len(original) < 2 or not bool(scale > 0):
        return float("nan")
    return float(gromov_wasserstein(distances, original, n_anchors=0).value / scale)


def _on_cpu(latents: Tensor | SparseLatents) -> Tensor | SparseLatents:
    if isinstance(latents, SparseLatents):
        return SparseLatents(latents.values.cpu(), latents.indices.cpu(), latents.d_sae)
    return latents.cpu()
