"""The terms of the fine-tuning loss: reconstruction, and the separability of items.

Regularizers act on effective latents through class moments, whose sums are reduced over processes
with their gradient: a regularizer has one value whatever the devices.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from saerepgeo.geometry.debiased_separation import (
    group_debiased_aedp,
    group_debiased_fisher_ratios,
)
from saerepgeo.geometry.grouped import (
    GroupFigures,
    group_aedp,
    group_classes,
    group_distances,
    group_fisher_ratios,
    grouped,
)
from saerepgeo.geometry.separation import (
    ClassMoments,
    centroids,
    pairwise_distances,
    unchecked_moments,
)
from saerepgeo.geometry.transport import Coupling, best_plan, distortion, gromov_wasserstein
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.parallel.collectives import all_reduce_sum
from saerepgeo.types import Float, Int, SparseLatents

Regularizer = Literal["aedp", "fisher", "debiased_aedp", "debiased_fisher", "gromov_wasserstein"]
Direction = Literal["increase", "decrease"]
TransportPlans = dict[tuple[int, ...], Tensor]
"""The last plan of each concept, by the items that were present: where the next search starts.

On the host, where the search is.
"""
FIGURES: dict[str, Callable[[ClassMoments], GroupFigures]] = {
    "aedp": group_aedp,
    "fisher": group_fisher_ratios,
    "debiased_aedp": group_debiased_aedp,
    "debiased_fisher": group_debiased_fisher_ratios,
}


def mean_squared_error(
    recons: Float[Tensor, "point d_model"], residuals: Float[Tensor, "point d_model"]
) -> Float[Tensor, ""]:
    """Return mse = mean_p ‖x̂_p − x_p‖², the sum over d_model averaged over points; 0 for none."""
    return (recons - residuals).square().sum() / max(len(residuals), 1)


def reduced_moments(
    effective: Float[Tensor, "point d_sae"] | SparseLatents,
    labels: Int[Tensor, "point"],
    n_items: int,
) -> ClassMoments:
    """Return counts, sums and square sums of each item over all processes, in float32.

    Of an SAE's latents and the stream's labels: neither is checked, for the host would wait.
    """
    moments = unchecked_moments(effective, labels, n_items, torch.float32)
    return ClassMoments(*(all_reduce_sum(moment) for moment in moments))


@torch.no_grad()
def item_distances(
    sae: SAEModel, residuals: Float[Tensor, "point d_model"], labels: Tensor, n_items: int
) -> Float[Tensor, "item item"]:
    """Return the distances between the items' centroids of effective latents; 0 without points."""
    distances = torch.zeros(n_items, n_items, device=residuals.device)
    if len(labels):
        effective = sae.effective_latents(sae.encode(residuals).latents)
        moments = reduced_moments(effective, labels, n_items)
        present = (moments.counts > 0).nonzero()[:, 0]
        distances[present[:, None], present] = pairwise_distances(centroids(moments))
    return distances


def relative_gromov_wasserstein(
    distances: Float[Tensor, "n n"],
    target: Float[Tensor, "n n"],
    plan: Float[Tensor, "n n"] | None = None,
) -> Coupling:
    """Return GW(D, D*)/mean(D*²) and the plan; the search starts from `plan` too.

    GW is the squared Gromov–Wasserstein objective; its gradient takes the plan as fixed (envelope
    theorem). The target must have an extent.
    """
    coupling = gromov_wasserstein(distances, target, plan=plan, n_anchors=0)
    return coupling._replace(value=coupling.value / target.double().square().mean())


def separability_term(
    moments: ClassMoments,
    concepts: Sequence[range],
    kind: Regularizer,
    direction: Direction,
    target_distances: Float[Tensor, "item item"] | None = None,
    plans: TransportPlans | None = None,
) -> Float[Tensor, ""]:
    """Return the regularizer, the mean over concepts of what is to become small.

    aedp, fisher, debiased or not: ∓ the logarithm of AEDP or of the Fisher ratio, free of units
    and without bound: the reconstruction error holds it back. gromov_wasserstein:
    `relative_gromov_wasserstein` of the items present to their block of `target_distances`, which
    carries the direction and must be given (ValueError); the search starts from `plans`, and puts
    there those that it finds.

    `concepts` holds the item ids of each concept. Concepts with fewer than two items in the batch,
    or without extent, take no part; 0 if none do.
    """
    classes = group_classes(concepts, moments.counts.device)
    by_concept = grouped(moments, classes)
    if kind == "gromov_wasserstein":
        if target_distances is None:
            raise ValueError("gromov_wasserstein needs `target_distances`, got None")
        is_item = classes >= 0
        targets = target_distances[classes[..., None], classes[..., None, :]]
        targets = targets * (is_item[..., None] & is_item[..., None, :])
        values, is_defined = _relative_distortions(
            by_concept, concepts, targets, {} if plans is None else plans
        )
    else:
        figures, is_defined = FIGURES[kind](by_concept)
        values = (-1.0 if direction == "increase" else 1.0) * figures.log()
    return torch.where(is_defined, values, 0.0).sum() / is_defined.sum().clamp(min=1)


def _relative_distortions(
    moments: ClassMoments, concepts: Sequence[range], targets: Tensor, plans: TransportPlans
) -> GroupFigures:
    """Return `relative_gromov_wasserstein` of every concept; the host waits for one copy."""
    distances, present = group_distances(moments), moments.counts > 0
    are_present = present[..., None] & present[..., None, :]
    targets = torch.where(are_present, targets.double(), 0.0)
    parts = (distances.detach(), targets, present[..., None].double())
    host = [*torch.cat(parts, -1).cpu().numpy()]
    found = [_plan(*concept, plans) for concept in zip(concepts, host, strict=True)]
    plan = torch.from_numpy(np.stack(found)).to(distances.device, non_blocking=True)
    scale = targets.square().sum((-2, -1)) / present.sum(-1).clamp(min=1).square()
    is_defined = (present.sum(-1) >= 2) & (scale > 0)
    values = distortion(distances, targets, plan) / torch.where(is_defined, scale, 1.0)
    return GroupFigures(values, is_defined)


def _plan(items: range, found: np.ndarray, plans: TransportPlans) -> np.ndarray:
    """Return the plan of one concept, 0 where it takes no part; `found` holds its distances."""
    width = len(found)
    distances, target, present = found[:, :width], found[:, width:-1], found[:, -1] > 0
    plan, rows = np.zeros_like(target), np.ix_(present, present)
    # what is not finite makes the loss so, which stops the run
    if present.sum() >= 2 and target.max() > 0 and np.isfinite(distances).all():
        key = tuple(items[place] for place in np.flatnonzero(present))
        mass = np.full(len(key), 1 / len(key))
        now, wanted = ((c + c.T) / 2 for c in (distances[rows], target[rows]))
        plan[rows] = best_plan(now, wanted, mass, mass, plans.get(key), n_anchors=0)
        plans[key] = torch.from_numpy(plan[rows])
    return plan
