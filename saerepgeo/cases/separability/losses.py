"""The terms of the fine-tuning loss: reconstruction, and regularizers on the separability of items.

The regularizers act on effective latents (z_i·‖W_dec,i‖) through class moments, whose sums are
reduced over processes with their gradient: a regularizer has one value whatever the devices.
"""

from collections.abc import Sequence
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
from saerepgeo.geometry.transport import gromov_wasserstein
from saerepgeo.sae.parallel.collectives import all_reduce_sum
from saerepgeo.types import Float, Int, SparseLatents

Regularizer = Literal["aedp", "fisher", "gromov_wasserstein"]
Direction = Literal["increase", "decrease"]
TransportPlans = dict[tuple[int, ...], Tensor]
"""The last plan of each concept, by the items that were present: where the next search starts."""


def squared_error(
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


def log_separability(
    moments: ClassMoments, concepts: Sequence[range], kind: Literal["aedp", "fisher"]
) -> Float[Tensor, ""]:
    """Return the mean over concepts of the logarithm of AEDP or of the Fisher ratio.

    Logarithms make the term free of units: a step of it is a relative change, alike for concepts
    of different scale. Concepts with fewer than two items in the batch take no part; 0 if none do.

    Args:
        concepts: the item ids of each concept.
    """
    terms = []
    for items in concepts:
        chosen = moments.select(items)
        figure = (
            average_pairwise_distance(centroids(chosen)) if kind == "aedp" else fisher_ratio(chosen)
        )
        if figure.reason is None and bool(figure.value.detach() > 0):
            terms.append(figure.value.log())
    if not terms:
        return moments.sums.sum() * 0.0
    return torch.stack(terms).mean()


def transport_to_target(
    moments: ClassMoments,
    concepts: Sequence[range],
    target_distances: Float[Tensor, "item item"],
    plans: TransportPlans | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over concepts of GW(D, D*)/mean(D*²): the centroids against their target.

    D are the distances between the centroids of the items present, D* their block of
    `target_distances`, GW the squared Gromov–Wasserstein objective. The gradient goes through the
    plan as if it were fixed (envelope theorem). Concepts with fewer than two items present or a
    target without extent take no part; 0 if none do.
    """
    plans = {} if plans is None else plans
    terms = []
    for items in concepts:
        present = [item for item in items if int(moments.counts[item]) > 0]
        target = target_distances[present][:, present]
        if len(present) < 2 or not bool(target.max() > 0):
            continue
        distances = pairwise_distances(centroids(moments.select(present)))
        key = tuple(present)
        coupling = gromov_wasserstein(distances, target, plan=plans.get(key), n_anchors=0)
        plans[key] = coupling.plan
        terms.append(coupling.value / target.double().square().mean())
    if not terms:
        return moments.sums.sum() * 0.0
    return torch.stack(terms).mean()


def separability_term(
    moments: ClassMoments,
    concepts: Sequence[range],
    kind: Regularizer,
    direction: Direction,
    target_distances: Float[Tensor, "item item"] | None = None,
    plans: TransportPlans | None = None,
) -> Float[Tensor, ""]:
    """Return the regularizer: what is to become small.

    aedp, fisher: ∓ `log_separability`; minimizing it increases or decreases separability without
    bound, held back by the reconstruction error. gromov_wasserstein: `transport_to_target`, whose
    target carries the direction.

    Raises:
        ValueError: gromov_wasserstein without `target_distances`.
    """
    if kind == "gromov_wasserstein":
        if target_distances is None:
            raise ValueError("gromov_wasserstein needs `target_distances`, got None")
        return transport_to_target(moments, concepts, target_distances, plans)
    sign = -1.0 if direction == "increase" else 1.0
    return sign * log_separability(moments, concepts, kind)


__all__ = [
    "Direction",
    "Regularizer",
    "log_separability",
    "reduced_moments",
    "separability_term",
    "squared_error",
    "transport_to_target",
]
