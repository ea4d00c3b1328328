"""Distances between symmetric positive semidefinite matrices, given by their factors.

G_X = X Xᵀ with X [dim, factor]; the matrices themselves (dim × dim) are never formed.
"""

import math

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.geometry.clouds.entries import unit_of
from saerepgeo.types import Estimate, Float


def spsd_distance(
    x: Float[Tensor, "dim factor_x"], y: Float[Tensor, "dim factor_y"], weight: float = 1.0
) -> Estimate:
    """Return the distance of X Xᵀ and Y Yᵀ in the stratum S₊(r, dim) of matrices of rank r.

    d² = Σ θ_i² + `weight` · ‖log(R_X^{−1/2} R_Y R_X^{−1/2})‖²_F, where θ are the principal angles
    of the two ranges, and R_X = P_Xᵀ X Xᵀ P_X the r × r form on the principal vectors P_X, which
    are not unique with an angle of π/2 twice over. Undefined where the ranks differ (use
    `bures_wasserstein`) or are 0; `n_used` is the rank. Raises ValueError for integer or non-finite
    input, and where the numbers of rows differ. Source: Bonnabel & Sepulchre 2009, *Riemannian
    Metric and Geometric Mean for Positive Semidefinite Matrices of Fixed Rank*, equation 4.6 and
    theorem 1.

    >>> x = torch.eye(5, 3)
    >>> round(float(spsd_distance(x, 2 * x)) / 3**0.5, 6)  # ln 4
    1.386294
    """
    (basis_x, scale_x, log_x), (basis_y, scale_y, log_y) = _range(x, "x"), _range(y, "y")
    _check_rows(x, y)
    rank_x, rank_y = scale_x.numel(), scale_y.numel()
    if rank_x != rank_y:
        return Estimate.undefined(f"ranks {rank_x} and {rank_y} differ: use `bures_wasserstein`")
    if rank_x == 0:
        return Estimate.undefined("both matrices have rank zero")
    left, cosines, right = torch.linalg.svd(basis_x.T @ basis_y)
    # the arc cosine loses half the digits of a small angle; the sines keep them
    outside = basis_y @ right.T - basis_x @ (left * cosines)
    angles = torch.atan2(outside.norm(dim=0), cosines.clamp(max=1))
    # R = Pᵀ G P has the root M = Pᵀ U diag(σ), so R_X^{-1/2} R_Y R_X^{-1/2} has the singular
    # values of M_X⁻¹ M_Y, squared
    stretch = torch.linalg.svdvals(torch.linalg.solve(left.T * scale_x, right * scale_y))
    squared = angles.square().sum() + weight * (2 * (stretch.log() + log_y - log_x)).square().sum()
    return Estimate(squared.sqrt(), rank_x, 0)


def bures_wasserstein(
    x: Float[Tensor, "dim factor_x"], y: Float[Tensor, "dim factor_y"]
) -> Float[Tensor, ""]:
    """Return the Bures–Wasserstein distance of X Xᵀ and Y Yᵀ, whatever their ranks.

    d² = tr G_X + tr G_Y − 2 tr (G_X^{1/2} G_Y G_X^{1/2})^{1/2} = min_Q ‖X − Y Q‖²_F over orthogonal
    Q: the Wasserstein-2 distance of centered Gaussians of these covariances. 0 for empty factors.
    Raises as `spsd_distance`. Source: Bhatia, Jain & Lim 2019, *On the Bures–Wasserstein Distance*,
    theorem 1.

    >>> bures_wasserstein(torch.eye(4, 2), 3 * torch.eye(4, 2))
    tensor(2.8284, dtype=torch.float64)
    """
    x, y = as_float64(x, "x"), as_float64(y, "y")
    _check_rows(x, y)
    unit = unit_of(x, y)
    x, y = x / unit, y / unit
    width = max(x.shape[1], y.shape[1])
    x, y = (torch.nn.functional.pad(factor, (0, width - factor.shape[1])) for factor in (x, y))
    left, _, right = torch.linalg.svd(y.T @ x)
    # the norm of the difference, for the three traces cancel where X and Y are near
    return torch.linalg.norm(x - y @ (left @ right)) * unit


def _range(factor: Tensor, name: str) -> tuple[Tensor, Tensor, float]:
    """Return basis and singular values of the range of a factor, rank by eps, and log unit."""
    x = as_float64(factor, name)
    unit = unit_of(x)
    x = x / unit
    if 0 in x.shape:
        return x.new_zeros(x.shape[0], 0), x.new_zeros(0), 0.0
    basis, values, _ = torch.linalg.svd(x, full_matrices=False)
    rank = int((values > values[0] * max(x.shape) * torch.finfo(factor.dtype).eps).sum())
    return basis[:, :rank], values[:rank], math.log(unit)


def _check_rows(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise ValueError(f"`x` and `y` must have equally many rows, got {len(x)} and {len(y)}")
