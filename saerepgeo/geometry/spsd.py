"""Distances between symmetric positive semidefinite matrices, given by their factors.

G_A = A Aᵀ with A [dim, factor]; the matrices themselves (dim × dim) are never formed.
"""

import torch
from torch import Tensor

from saerepgeo.geometry.checks import as_float64
from saerepgeo.types import Estimate, Float

__all__ = ["bures_wasserstein", "spsd_distance"]


def spsd_distance(
    a: Float[Tensor, "dim factor_a"], b: Float[Tensor, "dim factor_b"], weight: float = 1.0
) -> Estimate:
    """Return the distance of A Aᵀ and B Bᵀ in the stratum S₊(r, dim) of matrices of rank r.

    d² = Σ θ_i² + `weight` · ‖log(R_A^{−1/2} R_B R_A^{−1/2})‖²_F, where θ are the principal angles
    of the two ranges, and R_A = Y_Aᵀ A Aᵀ Y_A the r × r form on the principal vectors Y_A. The
    stratum has dimension dim·r − r(r−1)/2. Scaling G by 4 moves it by √r · ln 4 (at weight 1).

    Undefined, with the reason, where the ranks differ (the strata lie infinitely far apart: use
    `bures_wasserstein`) or are 0. With a principal angle of π/2 twice over, the principal vectors
    are not unique, and neither is the distance.

    Raises ValueError for integer or non-finite input, and where the numbers of rows differ.

    Source: Bonnabel & Sepulchre 2009, *Riemannian Metric and Geometric Mean for Positive
    Semidefinite Matrices of Fixed Rank*, equation 4.6 and theorem 1.

    >>> a = torch.eye(5, 3)
    >>> round(float(spsd_distance(a, 2 * a)) / 3**0.5, 6)  # ln 4
    1.386294
    """
    (basis_a, scale_a), (basis_b, scale_b) = _range(a, b, "a"), _range(b, a, "b")
    rank_a, rank_b = scale_a.numel(), scale_b.numel()
    if rank_a != rank_b:
        return Estimate.undefined(f"ranks {rank_a} and {rank_b} differ: use `bures_wasserstein`")
    if rank_a == 0:
        return Estimate.undefined("both matrices are zero")
    left, cosines, right = torch.linalg.svd(basis_a.T @ basis_b)
    # the arc cosine loses half the digits of a small angle; the sines keep them
    outside = basis_b @ right.T - basis_a @ (left * cosines)
    angles = torch.atan2(outside.norm(dim=0), cosines.clamp(max=1))
    # R = Yᵀ G Y has the root M = Yᵀ U diag(σ), so R_A^{-1/2} R_B R_A^{-1/2} has the singular
    # values of M_A⁻¹ M_B, squared
    root_a = left.T * scale_a
    root_b = right * scale_b
    stretch = torch.linalg.svdvals(torch.linalg.solve(root_a, root_b))
    squared = angles.square().sum() + weight * (2 * stretch.log()).square().sum()
    return Estimate(squared.sqrt(), rank_a, 0)


def bures_wasserstein(
    a: Float[Tensor, "dim factor_a"], b: Float[Tensor, "dim factor_b"]
) -> Float[Tensor, ""]:
    """Return the Bures–Wasserstein distance of A Aᵀ and B Bᵀ, whatever their ranks.

    d² = tr G_A + tr G_B − 2 tr (G_A^{1/2} G_B G_A^{1/2})^{1/2} = min_Q ‖A − B Q‖²_F over orthogonal
    Q: the Wasserstein-2 distance of centered Gaussians of these covariances. 0 for empty factors.
    Raises ValueError for integer or non-finite input, and where the numbers of rows differ.

    Source: Bhatia, Jain & Lim 2019, *On the Bures–Wasserstein Distance*, theorem 1.

    >>> bures_wasserstein(torch.eye(4, 2), 3 * torch.eye(4, 2))
    tensor(2.8284, dtype=torch.float64)
    """
    x, y = as_float64(a, "a"), as_float64(b, "b")
    _check_rows(x, y)
    width = max(x.shape[1], y.shape[1])
    x = torch.nn.functional.pad(x, (0, width - x.shape[1]))
    y = torch.nn.functional.pad(y, (0, width - y.shape[1]))
    if 0 in x.shape:
        return x.new_zeros(())
    left, _, right = torch.linalg.svd(y.T @ x)
    # the norm of the difference, for the three traces cancel where A and B are near
    return torch.linalg.norm(x - y @ (left @ right))


def _range(a: Tensor, other: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return orthonormal basis and singular values of the range of `a`, rank by eps."""
    x = as_float64(a, name)
    _check_rows(x, other)
    if 0 in x.shape:
        return x.new_zeros(x.shape[0], 0), x.new_zeros(0)
    basis, values, _ = torch.linalg.svd(x, full_matrices=False)
    rank = int((values > values[0] * max(x.shape) * torch.finfo(a.dtype).eps).sum())
    return basis[:, :rank], values[:rank]


def _check_rows(x: Tensor, y: Tensor) -> None:
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"`a` and `b` must have equally many rows, got {len(x)} and {len(y)}")
