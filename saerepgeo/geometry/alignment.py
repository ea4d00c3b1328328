"""Whether two representations of the same points have the same shape."""

from collections.abc import Iterable

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud
from saerepgeo.geometry.clouds.conversion import AnyPoints, as_float64
from saerepgeo.geometry.clouds.entries import unit_of
from saerepgeo.types import Estimate, Float, Int, SparseLatents


def procrustes_disparity(
    x: Float[Tensor, "point d_x"] | SparseLatents | Cloud,
    y: Float[Tensor, "point d_y"] | SparseLatents | Cloud,
) -> Estimate:
    """Return what rotation, translation and scaling cannot make equal in two paired point sets.

    1 − (Σ_i σ_i(XᵀY))², X and Y centered, of unit Frobenius norm, the narrower padded with zeros: 0
    for the same shape, at most 1. Symmetric in x and y; differentiable. Few points are always
    nearly aligned: two give 0, random ones in 50 dimensions .016 (3 points), .040 (5), .095 (10).
    Never show it without its permutation null. Fewer than two points, or all points of one side
    equal: undefined. Raises ValueError for integer or non-finite points, or different numbers of
    points. Source: Gower (1975), *Generalized Procrustes analysis*.

    >>> square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> turned = 3 * square.flip(1) + 7
    >>> abs(procrustes_disparity(square, turned).value.item()) < 1e-12
    True
    """
    prepared = _unit_pair(x, y, least=2)
    if isinstance(prepared, Estimate):
        return prepared
    unit_x, unit_y = prepared
    spectrum = torch.linalg.svdvals(_narrowed(unit_x).T @ _narrowed(unit_y))
    return Estimate((1 - spectrum.sum().square()).clamp(min=0.0), len(unit_x), 0)


def debiased_cka(
    x: Float[Tensor, "point d_x"] | SparseLatents | Cloud,
    y: Float[Tensor, "point d_y"] | SparseLatents | Cloud,
) -> Estimate:
    """Return the linear centered kernel alignment of paired points, without its bias.

    HSIC₁(x, y)/√(HSIC₁(x, x)·HSIC₁(y, y)), with centered rows and up to one factor of n

        HSIC₁ = ‖XᵀY‖²_F − n/(n−2) Σ_i ‖x_i‖²‖y_i‖² + ‖X‖²_F‖Y‖²_F/((n−1)(n−2)),

    the unbiased estimator. 1 for one shape; near 0, on either side, for independent points, where
    the biased CKA gives .94 (50 points in hundreds of dimensions). Differentiable. Fewer than four
    points, or a side without variance that the estimator can see: undefined. Raises ValueError for
    integer or non-finite points, or different numbers of points. Source: Song et al. (2012),
    *Feature selection via dependence maximization*; Kornblith et al. (2019), *Similarity of neural
    network representations revisited*.

    >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0], [3.0, 3.0], [4.0, 1.0]])
    >>> round(debiased_cka(x, 2 * x.flip(1) - 1).value.item(), 12)
    1.0
    """
    return debiased_ckas(x, y, [None])[0]


def debiased_ckas(
    x: AnyPoints, y: AnyPoints, orders: Iterable[Int[Tensor, "point"] | None]
) -> list[Estimate]:
    """Return `debiased_cka(x, y[order])` for many orders of the points of y, None for their own.

    What does not depend on the order is found once. Raises as `debiased_cka`.
    """
    prepared = _unit_pair(x, y, least=4)
    if isinstance(prepared, Estimate):
        return [prepared for _ in orders]
    n, is_wide = len(prepared[0]), len(prepared[0]) < max(side.shape[1] for side in prepared)
    # for many points in few dimensions the same from products of columns
    one, other = ((side @ side.T if is_wide else side) for side in prepared)
    norms_x, norms_y = (side.square().sum(1) for side in prepared)

    def hsic(a: Tensor, norms_a: Tensor, b: Tensor, norms_b: Tensor) -> Tensor:
        product = (a * b).sum() if is_wide else (a.T @ b).square().sum()
        correction = norms_a.sum() * norms_b.sum() / ((n - 1) * (n - 2))
        return product - n / (n - 2) * (norms_a * norms_b).sum() + correction

    own_x, own_y = hsic(one, norms_x, one, norms_x), hsic(other, norms_y, other, norms_y)
    if min(own_x.item(), own_y.item()) <= 1e-12:
        reason = "the self-similarity of one side is not positive"
        return [Estimate.undefined(reason, n) for _ in orders]
    unit, found = (own_x * own_y).sqrt(), []
    for order in orders:
        b, norms_b = other, norms_y
        if order is not None:
            order = order.to(other.device)
            b, norms_b = other[order], norms_y[order]
            b = b[:, order] if is_wide else b
        found.append(Estimate(hsic(one, norms_x, b, norms_b) / unit, n, 0))
    return found


def _narrowed(points: Tensor) -> Tensor:
    """Return the points in a basis of their span, at most as wide as they are many.

    The singular values of XᵀY stay. The basis is held fixed under differentiation: turning the span
    moves none of them in first order, and QR has no derivative at centered points.
    """
    if points.shape[0] >= points.shape[1]:
        return points
    return points @ torch.linalg.qr(points.detach().T).Q


def _unit_pair(x: AnyPoints, y: AnyPoints, least: int) -> tuple[Tensor, Tensor] | Estimate:
    """Return paired points, centered and of unit Frobenius norm, or why there are none."""
    pair = as_float64(x, "x"), as_float64(y, "y")
    n = len(pair[0])
    if n != len(pair[1]):
        raise ValueError(f"`x` and `y` must have paired rows, got {n} and {len(pair[1])}.")
    if n < least:
        return Estimate.undefined(f"needs {least} or more points, got {n}", n)
    units = []
    for points in pair:
        points = points / unit_of(points)
        centered = points - points.mean(0)
        # what is only rounding of equal points is 0
        rounding = 8 * torch.finfo(points.dtype).eps * points.detach().abs().amax(0)
        is_rounding = centered.detach().abs().amax(0) <= rounding
        if bool(is_rounding.any()):
            centered = centered.masked_fill(is_rounding, 0.0)
        norm = centered.norm()
        if not bool(norm > 0):
            return Estimate.undefined("all points of one side are equal: no shape", n)
        units.append(centered / norm)
    return units[0], units[1]
