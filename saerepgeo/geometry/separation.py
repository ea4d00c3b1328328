"""How far apart the classes of a labeled point cloud lie.

Everything here follows from per-class counts, sums and square sums, which add up over batches and
over processes: a figure, or a regularizer made of it, has one value however points are shared out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Points
from saerepgeo.geometry.clouds.conversion import (
    AnyPoints,
    as_float64,
    check_labels_of,
    check_points,
    take_points,
)
from saerepgeo.geometry.clouds.entries import check_matrix, check_squares, unit_of
from saerepgeo.geometry.graphs import mst_weight
from saerepgeo.types import Estimate, Float, Int, SparseLatents

MAX_SUMS = 2**30
"""Entries of the sums of all classes, at most: 8 GiB."""


class ClassMoments(NamedTuple):
    """Number of points, Σx and Σ‖x‖² of every class; of groups of classes where they are stacked.

    Both scatters take groups as well, and give a number for each.
    """

    counts: Int[Tensor, "*group cluster"]
    sums: Float[Tensor, "*group cluster dim"]
    square_sums: Float[Tensor, "*group cluster"]

    def __add__(self, other: "ClassMoments") -> "ClassMoments":  # type: ignore[override]
        """Return the moments of both batches together."""
        return ClassMoments(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def select(self, classes: Sequence[int] | Int[Tensor, "chosen"]) -> "ClassMoments":
        """Return the moments of the named classes only, e.g. the items of one concept."""
        index = torch.as_tensor(classes, dtype=torch.long, device=self.counts.device)
        return ClassMoments(*(moment[index] for moment in self))


def class_moments(
    points: Points, labels: Int[Tensor, "_"], n_classes: int, *, dtype: torch.dtype = torch.float64
) -> ClassMoments:
    """Return counts, sums and square sums of every class; they add up over batches.

    n_k = #{i: y_i = k}, s_k = Σ_{y_i=k} x_i, q_k = Σ_{y_i=k} ‖x_i‖².

    Points far from the origin lose digits. Labels of −1 leave points out; classes without a point
    get zeros. Sparse latents stay sparse. Differentiable; accumulated in `dtype`, float32 or
    float64. Raises ValueError for integer or non-finite points, squares outside the range of
    `dtype`, labels outside −1…n_classes−1, unequal lengths, and more than 2³⁰ sums.

    >>> moments = class_moments(torch.tensor([[0.0], [2.0], [9.0]]), torch.tensor([0, 0, -1]), 2)
    >>> moments.counts.tolist(), moments.sums.tolist(), moments.square_sums.tolist()
    ([2, 0], [[2.0], [0.0]], [4.0, 0.0])
    """
    check_labels(points, labels, n_classes)
    named = (labels >= 0).nonzero()[:, 0]
    kept, labels = take_points(points, named), labels[named].long()
    check_points(kept)
    if isinstance(kept, SparseLatents):
        kept = kept.merged()
        values, width = kept.values, kept.d_sae
    else:
        is_dense = isinstance(kept, Tensor) and kept.layout == torch.strided
        values = kept = kept if is_dense else as_float64(kept)  # type: ignore[assignment]
        width = values.shape[1]
    if n_classes * width > MAX_SUMS:
        raise ValueError(f"{n_classes} classes of {width} columns are too many: number from 0")
    check_squares(values.to(dtype))
    return unchecked_moments(kept, labels, n_classes, dtype)  # type: ignore[arg-type]


def unchecked_moments(
    points: Float[Tensor, "point dim"] | SparseLatents,
    labels: Int[Tensor, "point"],
    n_classes: int,
    dtype: torch.dtype,
) -> ClassMoments:
    """Return `class_moments` of points known to be good, without asking their device for a number.

    What `class_moments` refuses gives NaN, or wrong sums. A latent has one entry a point at most.
    """
    places = torch.where(labels < 0, n_classes, labels.long())  # one class more, for no class
    if isinstance(points, SparseLatents):
        values, d_sae = points.values.to(dtype), points.d_sae
        cells = (places[:, None] * d_sae + points.indices).flatten()
        sums = _add_at(cells, values.flatten(), (n_classes + 1) * d_sae).view(-1, d_sae)
    else:
        values = points.to(dtype)
        sums = _add_at(places, values, n_classes + 1)
    square_sums = _add_at(places, values.square().sum(1), n_classes + 1)
    counts = _add_at(places, torch.ones_like(places), n_classes + 1)
    return ClassMoments(*(moment[:n_classes] for moment in (counts, sums, square_sums)))


def check_labels(points: AnyPoints, labels: Tensor, n_classes: int) -> None:
    """Raise ValueError unless every point has a label in −1…n_classes − 1."""
    check_labels_of(points, labels)
    low, high = map(int, labels.aminmax()) if len(labels) else (0, 0)
    if not -1 <= low <= high < max(n_classes, 1):
        raise ValueError(
            f"`labels` must lie in −1…{n_classes - 1} (n_classes={n_classes}), got {low}…{high}."
        )


def centroids(moments: ClassMoments) -> Float[Tensor, "present dim"]:
    """Return the means c_k = s_k/n_k of the classes that have points, in class order."""
    present = moments.counts > 0
    return moments.sums[present] / moments.counts[present, None].to(moments.sums)


def within_scatter(moments: ClassMoments) -> Float[Tensor, "*group"]:
    """Return trace(S_w) = Σ_k Σ_{y_i=k} ‖x_i − c_k‖², never negative.

    What is only rounding of coincident points counts as 0 (without gradient). No points give 0.
    """
    of_means = moments.sums.square().sum(-1) / moments.counts.clamp(min=1).to(moments.sums)
    scatter = (moments.square_sums - of_means).sum(-1)
    total = moments.square_sums.detach().sum(-1)
    rounding = 16 * torch.finfo(total.dtype).eps * moments.counts.sum(-1).sqrt() * total
    return torch.where(scatter.detach() > rounding, scatter, torch.zeros_like(scatter))


def between_scatter(moments: ClassMoments) -> Float[Tensor, "*group"]:
    """Return trace(S_b) = Σ_k n_k ‖c_k − c̄‖², c̄ the mean of all labeled points; 0 for none."""
    weights, sums = moments.counts.to(moments.sums), moments.sums
    mean = sums.sum(-2, keepdim=True) / weights.sum(-1).clamp(min=1)[..., None, None]
    centers = sums / weights.clamp(min=1)[..., None]
    return (weights * (centers - mean).square().sum(-1)).sum(-1)


def pairwise_distances(points: Float[Tensor, "point dim"]) -> Float[Tensor, "point point"]:
    """Return the Euclidean distances ‖x_i − x_j‖ of few points, from the differences themselves.

    Coincident points have distance exactly 0 and gradient 0 (a subgradient), never NaN. Raises
    ValueError for integer or non-finite points.
    """
    check_matrix(points)
    x, n = points if points.dtype == torch.float64 else points.float(), len(points)
    i, j = torch.triu_indices(n, n, offset=1, device=points.device)
    upper = x.new_zeros(n, n).index_put((i, j), _distances(x))
    return upper + upper.T


def average_pairwise_distance(centers: Float[Tensor, "cluster dim"]) -> Estimate:
    """Return the average Euclidean distance between pairs of centroids (AEDP), differentiable.

    AEDP = 2/(K(K−1)) Σ_{k<l} ‖c_k − c_l‖, in the units of the points. `n_used` counts centroids.
    Fewer than two: undefined. All equal: 0, with gradient 0. Raises ValueError for integer or
    non-finite centroids. Source: arXiv 2505.22506.

    >>> average_pairwise_distance(torch.tensor([[0.0], [1.0], [3.0]])).value.item()
    2.0
    """
    x = as_float64(centers, "centers")
    if (n := len(x)) < 2:
        return Estimate.undefined(f"AEDP needs two or more centroids, got {n}", n)
    return Estimate(_distances(x).mean(), n, 0)


def relative_aedp(moments: ClassMoments) -> Estimate:
    """Return AEDP in units of the root mean within-class variance: free of scale, differentiable.

    AEDP / √(trace(S_w)/(N − K)), with N points in K classes: the pooled variance is unbiased. Fewer
    than two classes with points, or no scatter within any class (every class a single point, say):
    undefined. `n_used` counts the centroids, `n_dropped` the classes without points.
    """
    aedp = average_pairwise_distance(centroids(moments))
    n_free = int(moments.counts.sum()) - aedp.n_used
    return _over_scatter(moments, lambda within: aedp.value / (within / n_free).double().sqrt())


def fisher_ratio(moments: ClassMoments) -> Estimate:
    """Return the scatter between classes over the scatter within: free of scale, differentiable.

    trace(S_b)/trace(S_w), S_b = Σ_k n_k (c_k − c̄)(c_k − c̄)ᵀ, S_w = Σ_k Σ_{y_i=k} (x_i − c_k)(x_i
    − c_k)ᵀ, c̄ the mean of all labeled points. Undefined, and counted, as `relative_aedp`. Source:
    Fukunaga (1990), *Introduction to Statistical Pattern Recognition*, ch. 10.
    """
    between = between_scatter(moments)
    return _over_scatter(moments, lambda within: (between / within).double())


def scale_free_mstw(centers: Float[Tensor, "cluster dim"]) -> Estimate:
    """Return the mean edge of the centroids' tree over their mean distance, differentiable.

    MSTW/((K−1)·AEDP), between 0 and 1: near 0 where the centroids form few tight groups, 1 where
    all are equally far apart (always, of two), 3/(K+1) where they are evenly spaced on a line.
    Fewer than two, or all equal: undefined. `n_used` counts centroids.

    >>> round(scale_free_mstw(torch.arange(5.0)[:, None]).value.item(), 12)
    0.5
    """
    centers = as_float64(centers, "centers")
    aedp, n = average_pairwise_distance(centers), len(centers)
    if aedp.reason is not None:
        return aedp._replace(reason=f"scale-free MSTW needs two or more centroids, got {n}")
    if not bool(aedp.value.detach() > 0):
        return Estimate.undefined("all centroids are equal", n)
    return Estimate(mst_weight(centers).value / ((n - 1) * aedp.value), n, 0)


def _add_at(places: Tensor, values: Tensor, size: int) -> Tensor:
    """Return Σ of the `values` (rows, or numbers) at each place, the same bits in every run."""
    zeros = values.new_zeros(size, *values.shape[1:])
    if values.device.type == "cpu":
        return zeros.index_add(0, places, values)
    return zeros.index_put((places,), values, accumulate=True)  # sorts, where index_add is atomic


def _distances(x: Tensor) -> Tensor:
    unit = unit_of(x)
    return torch.pdist(x / unit) * unit


def _over_scatter(moments: ClassMoments, figure: Callable[[Tensor], Tensor]) -> Estimate:
    n_used = int((moments.counts > 0).sum())
    n_dropped, within = len(moments.counts) - n_used, within_scatter(moments)
    if n_used < 2:
        reason = f"needs two or more classes with points, got {n_used}"
    elif not bool(within.detach() > 0):
        reason = "no scatter within the classes (single or coincident points in each)"
    else:
        return Estimate(figure(within), n_used, n_dropped)
    return Estimate.undefined(reason, n_used, n_dropped)
