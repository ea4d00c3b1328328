"""The silhouette: whether points lie nearer to their own class than to the next."""

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Points
from saerepgeo.geometry.clouds.conversion import as_float64, check_labels_of, take_points
from saerepgeo.geometry.clouds.entries import centered
from saerepgeo.geometry.clouds.matrix import MatrixCloud
from saerepgeo.geometry.clouds.pairwise import gram_distances
from saerepgeo.types import Estimate, Int

BLOCK_ENTRIES = 2**22
"""Distances held at a time: 32 MB in float64."""


def silhouette(points: Points, labels: Int[Tensor, "_"]) -> Estimate:
    """Return the mean silhouette of labeled points, between −1 and 1; differentiable.

    mean_i (b_i − a_i)/max(a_i, b_i), a_i the mean distance of point i to the others of its class,
    b_i the least mean distance to the points of another class. 0 for a point alone in its class,
    and for one at distance 0 from both (a_i = b_i = 0). Labels of −1 are left out and counted in
    `n_dropped`. Fewer than two classes, or every point a class of its own: undefined. Time O(N² d),
    memory O(N) beside the points (when no gradient is asked for). Raises ValueError for integer or
    non-finite points, and unequal lengths. Source: Rousseeuw (1987); equal to
    `sklearn.metrics.silhouette_score`.

    >>> points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    >>> round(silhouette(points, torch.tensor([0, 0, 1, 1])).value.item(), 6)
    0.899749
    """
    check_labels_of(points, labels)
    named = (labels >= 0).nonzero()[:, 0]
    n, n_dropped = len(named), len(labels) - len(named)
    kept = take_points(points, named)
    matrix = kept.distances.double() if isinstance(kept, MatrixCloud) else None
    x = as_float64(kept) if matrix is None else matrix
    classes, own = labels[named].unique(return_inverse=True)
    if not 2 <= len(classes) <= n - 1:
        reason = f"needs 2 to n−1 classes, got {len(classes)} for n={n} labeled points"
        return Estimate.undefined(reason, n, n_dropped)
    members = torch.nn.functional.one_hot(own, len(classes)).to(x)
    x, _ = centered(x)
    total = x.new_zeros(())
    for rows in torch.arange(n, device=x.device).split(max(1, BLOCK_ENTRIES // n)):
        distances = gram_distances(x[rows], x) if matrix is None else matrix[rows]
        total = total + _silhouette_sum(distances @ members, own[rows], members.sum(0))
    return Estimate(total / n, n, n_dropped)


def _silhouette_sum(to_class: Tensor, own: Tensor, sizes: Tensor) -> Tensor:
    index = own[:, None]
    n_others = sizes[own] - 1
    within = to_class.gather(1, index)[:, 0] / n_others.clamp(min=1)
    means = (to_class / sizes).scatter(1, index, float("inf"))
    nearest = means.min(1).values
    largest = torch.maximum(within, nearest)
    is_defined = (n_others > 0) & (largest > 0)
    return ((nearest - within) / torch.where(is_defined, largest, 1.0))[is_defined].sum()
