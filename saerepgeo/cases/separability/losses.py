"""The terms of the fine-tuning loss: reconstruction, and the separability of items.

Regularizers act on effective latents through class moments, whose sums are reduced over processes
with their gradient: a regularizer has one value whatever the devices.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    class_moments,
    fisher_ratio,
    pairwise_distances,
)
from saerepgeo.geometry.transport import Coupling, gromov_wasserstein
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.parallel.collectives import all_reduce_sum
from saerepgeo.types import Estimate, Float, Int, SparseLatents

Regularizer = Literal["aedp", "fisher", "gromov_wasserstein"]
Direction = Literal["increase", "decrease"]
TransportPlans = dict[tuple[int, ...], Tensor]
"""The last plan of each concept, by the items that were present: where the next search starts."""
FIGURES: dict[str, Callable[[ClassMoments], Estimate]] = {
    "aedp": lambda moments: average_pairwise_distance(centroids(moments)),
    "fisher": fisher_ratio,
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
    """Return counts, sums and square sums of each item over all processes, in float32."""
    moments = class_moments(effective, labels, n_items, dtype=torch.float32)
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

    aedp, fisher: ∓ the logarithm of AEDP or of the Fisher ratio, free of units and without bound:
    the reconstruction error holds it back. gromov_wasserstein: `relative_gromov_wasserstein` of the
    items present to their block of `target_distances`, which carries the direction and must be
    given (ValueError); the search starts from `plans`, and puts there those that it finds.

    `concepts` holds the item ids of each concept. Concepts with fewer than two items in the batch,
    or without extent, take no part; 0 if none do.
    """
    if kind == "gromov_wasserstein":
        if target_distances is None:
            raise ValueError("gromov_wasserstein needs `target_distances`, got None")
        plans = {} if plans is None else plans
        terms = list(_transport_terms(moments, concepts, target_distances, plans))
    else:
        figures = [FIGURES[kind](moments.select(items)) for items in concepts]
        sign = -1.0 if direction == "increase" else 1.0
        terms = [sign * f.value.log() for f in figures if f.reason is None and float(f) > 0]
    return torch.stack(terms).mean() if terms else moments.sums.sum() * 0.0


def _transport_terms(
    moments: ClassMoments, concepts: Sequence[range], targets: Tensor, plans: TransportPlans
) -> Iterator[Tensor]:
    for items in concepts:
        present = tuple(item for item in items if int(moments.counts[item]) > 0)
        target = targets[list(present)][:, list(present)]
        if len(present) >= 2 and bool(target.max() > 0):
            distances = pairwise_distances(centroids(moments.select(present)))
            found = relative_gromov_wasserstein(distances, target, plans.get(present))
            plans[present] = found.plan
            yield found.value
