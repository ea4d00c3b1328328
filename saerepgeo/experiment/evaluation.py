"""What an SAE is worth on held-out text and on labeled points, as rows of a table."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from saerepgeo.cases.separability.losses import relative_gromov_wasserstein
from saerepgeo.cases.separability.validation import ReconstructionFigures
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
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import ActivationBatch

RECONSTRUCTION = ("mse", "fvu", "relative_reconstruction_bias", "l0")


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
    figures = ReconstructionFigures(sae.d_sae).to(residuals.device)
    figures.add(residuals, out)
    moments = class_moments(sae.effective_latents(out.latents), labels, n_items)
    raw = class_moments(out.latents, labels, n_items)
    reconstruction = figures.compute()
    estimates = {
        "aedp": average_pairwise_distance(centroids(moments)),
        "aedp_raw": average_pairwise_distance(centroids(raw)),
        "relative_aedp": relative_aedp(moments),
        "fisher_ratio": fisher_ratio(moments),
    }
    found: dict[str, Any] = {"n_items": int((moments.counts > 0).sum())}
    found |= {name: float(reconstruction[name]) for name in RECONSTRUCTION}
    return found | {name: float(value) for name, value in estimates.items()}, moments


def _transport(now: ClassMoments, before: ClassMoments) -> float:
    distances, original = (pairwise_distances(centroids(m)) for m in (now, before))
    if len(original) < 2 or not bool(original.max() > 0):
        return float("nan")
    return float(relative_gromov_wasserstein(distances, original).value)
