"""Intrinsic dimension: in how many directions a cloud of points spreads, seen from its neighbors.

Ratios of neighbor distances of a locally uniform cloud depend on its dimension only. Intervals come
from subsamples without replacement (`nulls`): bootstrapped rows are duplicates, of ratio 0/0.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from scipy.optimize import brentq
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Points
from saerepgeo.geometry.clouds.conversion import as_cloud, check_labels_of
from saerepgeo.geometry.clouds.entries import check_finite
from saerepgeo.geometry.clouds.neighbors import distinct_points, nearest_neighbors
from saerepgeo.types import Estimate, Float, Int

MIN_POINTS = 30
"""Fewer distinct points say nothing: the standard error d/√N would be a fifth of the dimension."""
TOO_FEW = f"{{}} distinct points, at least {MIN_POINTS} needed"
TOLERANCE = 1e-6
"""Relative distance below which two points are one; float32 rounding of one activation is less."""

Method = Literal["linear", "mle"]


class ScaleCurve(NamedTuple):
    """Dimension by scale, from neighbors `n1` and 2·`n1`; NaN exactly where `reason` says why."""

    n1: Int[Tensor, "scale"]
    distances: Float[Tensor, "scale"]
    """Mean distance of neighbor 2·`n1`: the scale itself."""
    dimensions: Float[Tensor, "scale"]
    standard_errors: Float[Tensor, "scale"]
    """From the Fisher information, neighborhoods taken as independent."""
    n_used: int
    n_dropped: int
    reason: str | None = None


def two_nn(
    points: Points, discard: float = 0.1, *, method: Method = "linear", tolerance: float = TOLERANCE
) -> Estimate:
    """Return the intrinsic dimension by the ratio μ = r₂/r₁ of each point's neighbor distances.

    μ follows F(μ) = 1 − μ^{−d}. The largest fraction `discard` of the ratios is set aside, for
    they feel the curvature and the border of the set, and d follows from the k that remain,

    - `"linear"`: the slope through the origin of −log(1 − F) on log μ, F = i/N;
    - `"mle"`: (k − 1) / (Σ_{i≤k} ln μ_i + (N − k) ln μ_(k)), unbiased; standard error d/√k.

    Points nearer than `tolerance` × the RMS distance from the centroid are merged first: `n_used`
    counts the distinct points, `n_dropped` the others. Undefined for fewer than 30 distinct points
    and where all neighbors are equally far (a lattice). Not differentiable. Raises ValueError for
    integer or non-finite points, and `discard` or `tolerance` outside [0, 1). Source: Facco et al.
    2017, *Estimating the Intrinsic Dimension of Datasets by a Minimal Neighborhood Information*;
    Denti et al. 2022, equation 8 (censored MLE).

    >>> square = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    >>> plane = square @ torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    >>> round(float(two_nn(plane)), 1)
    2.0
    """
    _check_fractions(discard=discard, tolerance=tolerance)
    cloud = as_cloud(points)
    kept, neighbors = distinct_points(cloud, 2, tolerance)
    n_dropped = cloud.n_points - len(kept)
    if neighbors is None or len(kept) < MIN_POINTS:
        return Estimate.undefined(TOO_FEW.format(len(kept)), len(kept), n_dropped)
    ratios = neighbors.distances[:, 1] / neighbors.distances[:, 0]
    return dimension_from_ratios(ratios, discard, method=method)._replace(n_dropped=n_dropped)


def two_nn_within(points: Points, labels: Int[Tensor, "point"], discard: float = 0.1) -> Estimate:
    """Return the intrinsic dimension within classes: neighbors of the same class, ratios pooled.

    One fit of the censored MLE of `two_nn` to all ratios. Classes of fewer than three points and
    points with a duplicate in their class give none and count in `n_dropped`; labels of −1 are left
    out. Undefined for fewer than 30 ratios, and where all are 1. Raises ValueError for integer or
    non-finite points, and `discard` outside [0, 1).

    >>> square = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    >>> round(float(two_nn_within(square, torch.arange(2000) % 4)))
    2
    """
    _check_fractions(discard=discard)
    check_labels_of(points, labels)
    cloud, labels = as_cloud(points), labels.long()
    ratios = []
    for label in labels[labels >= 0].unique():
        members = (labels == label).nonzero()[:, 0]
        if len(members) >= 3:
            distances = nearest_neighbors(cloud.take(members), 2).distances
            apart = distances[:, 0] > 0
            ratios.append(distances[apart, 1] / distances[apart, 0])
    n_ratios = sum(map(len, ratios))
    n_dropped = int((labels >= 0).sum()) - n_ratios
    if n_ratios < MIN_POINTS:
        reason = f"{n_ratios} points with two neighbors of their class, {MIN_POINTS} needed"
        return Estimate.undefined(reason, n_ratios, n_dropped)
    found = dimension_from_ratios(torch.cat(ratios), discard, method="mle")
    return found._replace(n_dropped=n_dropped)


def dimension_from_ratios(
    ratios: Float[Tensor, "point"], discard: float = 0.1, *, method: Method = "linear"
) -> Estimate:
    """Return the TwoNN dimension that ratios μ = r₂/r₁ ≥ 1 of neighbor distances give.

    As in `two_nn`; `"linear"` always sets the largest ratio aside, where F = 1. Undefined for fewer
    than 2 ratios left, and where all are 1. Raises ValueError for ratios below 1, not finite, or of
    a dimension other than one.

    >>> ratios = torch.tensor([1.0, 2.0, 4.0]).exp()
    >>> round(float(dimension_from_ratios(ratios, 0.0, method="mle")), 6)  # 2/7
    0.285714
    """
    _check_fractions(discard=discard)
    check_finite(ratios, "ratios")
    if ratios.ndim != 1 or bool((ratios < 1).any()):
        raise ValueError("`ratios` must be a vector of second over first neighbor distance, ≥ 1")
    if method not in ("linear", "mle"):
        raise ValueError(f"`method` must be 'linear' or 'mle', got {method!r}")
    n_points = len(ratios)
    n_kept = int(n_points * (1 - discard))
    if method == "linear":
        n_kept = min(n_kept, n_points - 1)
    if n_kept < 2:
        return Estimate.undefined(f"{max(n_kept, 0)} ratios left, at least 2 needed", n_points)
    log_ratios = ratios.detach().double().log().sort().values[:n_kept]
    if float(log_ratios[-1]) == 0:
        return Estimate.undefined("all neighbors are equally far", n_points)
    if method == "mle":
        censored = (n_points - n_kept) * log_ratios[-1]
        return Estimate((n_kept - 1) / (log_ratios.sum() + censored), n_points, 0)
    rank = torch.arange(1, n_kept + 1, dtype=torch.float64, device=ratios.device)
    survival = -torch.log(1 - rank / n_points)
    return Estimate((log_ratios @ survival) / (log_ratios @ log_ratios), n_points, 0)


def gride(
    points: Points, n1: Sequence[int] = (1, 2, 4, 8, 16, 32), *, tolerance: float = TOLERANCE
) -> ScaleCurve:
    """Return the intrinsic dimension over scales, by neighbors n₁ and n₂ = 2n₁ (GRIDE).

    μ = r_{n₂}/r_{n₁} has the density d (μ^d − 1)^{n₂−n₁−1} / (B(n₂−n₁, n₁) μ^{d(n₂−1)+1}); d
    maximizes the likelihood, and its standard error follows from the Fisher information. n₁ = 1 is
    the uncensored TwoNN. A plateau is a dimension; a falling curve is noise at small scales.
    Duplicates are merged as in `two_nn`. Scales that need more neighbors than there are points are
    left out of the curve; it is empty, with a reason, for fewer than 30 distinct points. Raises
    ValueError for integer or non-finite points, no `n1`, or one below 1. Source: Denti, Doimo, Laio
    & Mira 2022, *The Generalized Ratios Intrinsic Dimension Estimator*, equations 9 and 10.

    >>> cube = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    >>> [round(d, 1) for d in gride(cube, (1, 2)).dimensions.tolist()]
    [3.0, 2.8]
    """
    _check_fractions(tolerance=tolerance)
    scales = sorted(set(n1))
    if not scales or scales[0] < 1:
        raise ValueError(f"`n1` must name numbers of neighbors ≥ 1, got {tuple(n1)}")
    cloud = as_cloud(points)
    while True:
        scales = [n for n in scales if 2 * n < cloud.n_points] or scales[:1]
        kept, neighbors = distinct_points(cloud, 2 * scales[-1], tolerance)
        if neighbors is not None or len(scales) == 1:
            break
        scales.pop()
    counts = (len(kept), cloud.n_points - len(kept))
    if neighbors is None or len(kept) < MIN_POINTS:
        empty = torch.zeros(0, dtype=torch.float64, device=cloud.device)
        return ScaleCurve(empty.long(), empty, empty, empty, *counts, TOO_FEW.format(len(kept)))
    index = torch.tensor(scales, device=cloud.device)
    near, far = (neighbors.distances[:, n - 1] for n in (index, 2 * index))
    fits = [_fit_scale(column, n) for column, n in zip((far / near).log().T, scales, strict=True)]
    values, errors = torch.tensor(fits, dtype=torch.float64, device=cloud.device).T
    reason = "all neighbors are equally far" if bool(values.isnan().any()) else None
    return ScaleCurve(index, far.mean(0), values, errors, *counts, reason)


def _fit_scale(log_ratios: Tensor, n1: int) -> tuple[float, float]:
    """Return d at n₂ = 2n₁ and its standard error; NaN where all ratios are 1."""
    n_points, total = len(log_ratios), float(log_ratios.sum())
    if total == 0:
        return math.nan, math.nan
    positive = log_ratios[log_ratios > 0]
    n_tied = n_points - len(positive)

    # falls in d; as in the censored MLE, N − 1 instead of N takes the bias off at n₁ = 1, and
    # where μ = 1 the middle term has the limit 1/d
    def score(d: float) -> float:
        middle = float((positive / -torch.expm1(-d * positive)).sum()) + n_tied / d
        return (n_points - 1) / d + (n1 - 1) * middle - (2 * n1 - 1) * total

    d = math.exp(brentq(lambda log_d: score(math.exp(log_d)), -50.0, 50.0, xtol=1e-15))
    curvature = (positive / (2 * torch.sinh(d * positive / 2))).square().sum() + n_tied / d**2
    return d, (n_points / d**2 + (n1 - 1) * float(curvature)) ** -0.5


def _check_fractions(**given: float) -> None:
    for name, value in given.items():
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` must lie in [0, 1), got {value}")
