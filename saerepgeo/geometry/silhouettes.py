"""The silhouette: whether points lie nearer to their own class than to the next."""

import torch
from torch import Tensor

from saerepgeo.geometry.checks import as_float64
from saerepgeo.geometry.clouds.pairwise import gram_distances
from saerepgeo.types import Estimate, Float, Int

__all__ = ["silhouette"]

_BLOCK_ENTRIES = 2**22  # distances held at a time: 32 MB in float64


def silhouette(
    points: Float[Tensor, "point dim"],
    labels: Int[Tensor, "point"],
) -> Estimate:
    """Return the mean silhouette of labeled points, between −1 and 1; differentiable.

    mean_i (b_i − a_i)/max(a_i, b_i), a_i the mean distance of point i to the others of its class,
    b_i the least mean distance to the points of another class. 0 for a point alone in its class,
    and for one at distance 0 from both (a_i = b_i = 0).

    Labels of −1 are left out and counted in `n_dropped`. Fewer than two classes, or every point a
    class of its own: undefined. Time O(N² d), memory O(N) beside the points (when no gradient is
    asked for).

    Raises:
        ValueError: integer or non-finite points, unequal lengths.

    Source: Rousseeuw (1987); equal to `sklearn.metrics.silhouette_score`.

    >>> points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    >>> round(silhouette(points, torch.tensor([0, 0, 1, 1])).value.item(), 6)
    0.899749
    """
    if labels.shape != points.shape[:1]:
        raise ValueError(
            f"`labels` must have one entry a point, got {tuple(labels.shape)} for "
            f"{points.shape[0]} points."
        )
    keep = labels >= 0
    n_dropped = len(labels) - int(keep.sum())
    x = as_float64(points[keep])
    classes, own = labels[keep].unique(return_inverse=True)
    n, n_classes = len(x), len(classes)
    if not 2 <= n_classes <= n - 1:
        reason = f"needs 2 to n−1 classes, got {n_classes} for n={n} labeled points"
        return Estimate.undefined(reason, n, n_dropped)
    members = torch.nn.functional.one_hot(own, n_classes).to(x)
    x = x - x.detach().mean(0)
    rows = max(1, _BLOCK_ENTRIES // n)
    blocks = zip(x.split(rows), own.split(rows), strict=True)
    total = torch.stack([_silhouette_sum(block, mine, x, members) for block, mine in blocks]).sum()
    return Estimate(total / n, n, n_dropped)


def _silhouette_sum(rows: Tensor, own: Tensor, points: Tensor, members: Tensor) -> Tensor:
    to_class = gram_distances(rows, points) @ members
    sizes = members.sum(0)
    index = own[:, None]
    n_others = sizes[own] - 1
    within = to_class.gather(1, index)[:, 0] / n_others.clamp(min=1)
    means = (to_class / sizes).scatter(1, index, float("inf"))
    nearest = means.min(1).values
    largest = torch.maximum(within, nearest)
    is_defined = (n_others > 0) & (largest > 0)
    return ((nearest - within) / torch.where(is_defined, largest, 1.0))[is_defined].sum()
