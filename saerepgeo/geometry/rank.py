"""How many directions a matrix of representations uses, by its singular values.

The Gram matrix G = X Xᵀ has the rank of X, so no function here forms one: squaring halves the
digits that tell a small singular value from none.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud
from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.geometry.clouds.entries import check_finite, unit_of
from saerepgeo.types import Estimate, Float, SparseLatents

Tolerance = Literal["eps", "gavish-donoho"] | float


class NumericalRankResult(NamedTuple):
    """A rank: singular values above `threshold` count; `dtype` is the precision of the data."""

    rank: int
    threshold: float
    dtype: torch.dtype

    def __int__(self) -> int:
        return self.rank


def singular_values(
    matrix: Float[Tensor, "row column"] | SparseLatents | Cloud,
) -> Float[Tensor, "value"]:
    """Return the singular values of `matrix` in float64, largest first; differentiable.

    None for an empty matrix. Raises ValueError for integer or non-finite input, and for tensors of
    other than two axes: see `mode_spectra`.

    >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    tensor([4., 3.], dtype=torch.float64)
    """
    x = as_float64(matrix, "matrix")
    unit = unit_of(x)
    x = x / unit
    # the thin factor of the long axis first: the square one left holds all singular values
    tall = x if x.shape[0] >= x.shape[1] else x.T
    if tall.shape[0] >= 2 * tall.shape[1]:
        tall = torch.linalg.qr(tall, mode="reduced" if x.requires_grad else "r").R
    return torch.linalg.svdvals(tall) * unit


def numerical_rank(
    sv: Float[Tensor, "value"],
    shape: tuple[int, int],
    tolerance: Tolerance = "eps",
    *,
    dtype: torch.dtype = torch.float64,
    noise: float | None = None,
) -> NumericalRankResult:
    """Return the number of singular values above a threshold, with the threshold.

    With σ₁ ≥ σ₂ ≥ … of an m × n matrix (`shape`), m ≤ n, β = m/n, the threshold is

    - `"eps"`: σ₁ · n · eps(`dtype`), where `dtype` is the precision the *data* had, not `sv`;
    - `"gavish-donoho"`: λ(β) √n · `noise` for noise of known standard deviation, with
      λ² = 2(β+1) + 8β / (β+1+√(β²+14β+1)), else λ(β)/√μ_β · median(σ), with μ_β the median of the
      Marchenko–Pastur law; never below that of `"eps"`: without noise the median is rounding;
    - a number: that number.

    Values come in any order; missing ones are 0. No values, or zeros only: rank 0. Raises
    ValueError for an unknown rule, a negative or NaN number, and more than m values. Source: Gavish
    & Donoho 2014, *The Optimal Hard Threshold for Singular Values is 4/√3*.

    >>> numerical_rank(torch.tensor([3.0, 1.0, 1e-20]), (3, 8)).rank
    2
    """
    _check_spectrum(sv)
    small, large = min(shape), max(shape)
    if sv.numel() > small:
        raise ValueError(f"`sv` holds {sv.numel()} values, but `shape` {shape} allows {small}")
    values = sv.detach().double()
    top = float(values.max()) if values.numel() else 0.0
    threshold = top * large * torch.finfo(dtype).eps
    if tolerance == "gavish-donoho":
        threshold = max(_gavish_donoho(values, small, large, noise), threshold)
    elif isinstance(tolerance, (int, float)) and tolerance >= 0:
        threshold = float(tolerance)
    elif tolerance != "eps":
        raise ValueError(
            f"`tolerance` must be 'eps', 'gavish-donoho' or a number ≥ 0, got {tolerance!r}"
        )
    return NumericalRankResult(int((values > threshold).sum()), threshold, dtype)


def effective_rank(sv: Float[Tensor, "value"]) -> Estimate:
    """Return exp H(p), p = σ/Σσ: the number of equal singular values of the same entropy.

    Between 1 and the rank, differentiable, as the two below; undefined where no singular value is
    positive. `n_used` counts the positive ones. Source: Roy & Vetterli 2007; Garrido et al. 2023
    (RankMe, equation 1, without its ε).

    >>> round(float(effective_rank(torch.ones(7))), 6)
    7.0
    """
    return _of_spectrum(sv, lambda s: torch.special.entr(s / s.sum()).sum().exp())


def stable_rank(sv: Float[Tensor, "value"]) -> Estimate:
    """Return ‖X‖²_F / ‖X‖₂² = Σσ² / σ₁², which small perturbations of X hardly change.

    Source: Rudelson & Vershynin 2007, *Sampling from Large Matrices*.

    >>> stable_rank(torch.tensor([2.0, 1.0])).value
    tensor(1.2500, dtype=torch.float64)
    """
    return _of_spectrum(sv, lambda s: s.square().sum())


def participation_ratio(sv: Float[Tensor, "value"]) -> Estimate:
    """Return (Σσ²)² / Σσ⁴, the participation ratio of the eigenvalues σ² of X Xᵀ.

    Source: Gao et al. 2017, *A Theory of Multineuronal Dimensionality*, equation 5.

    >>> participation_ratio(torch.tensor([1.0, 1.0, 0.0])).value
    tensor(2., dtype=torch.float64)
    """
    return _of_spectrum(sv, lambda s: s.square().sum().square() / s.pow(4).sum())


def _of_spectrum(sv: Tensor, formula: Callable[[Tensor], Tensor]) -> Estimate:
    """Return a figure that scale does not change, of the positive values over the largest."""
    _check_spectrum(sv)
    positive = sv.double()[sv > 0]
    if not len(positive):
        return Estimate.undefined(f"none of {sv.numel()} singular values is positive")
    return Estimate(formula(positive / positive.max()), len(positive), 0)


def _check_spectrum(sv: Tensor) -> None:
    check_finite(sv, "sv")
    if sv.ndim != 1 or bool((sv < 0).any()):
        raise ValueError(f"`sv` must be a vector of singular values ≥ 0, got {sv}")


def _gavish_donoho(values: Tensor, small: int, large: int, noise: float | None) -> float:
    if noise is not None and not 0 <= noise < math.inf:
        raise ValueError(f"`noise` must be a finite standard deviation ≥ 0, got {noise}")
    if small == 0:
        return 0.0
    beta = small / large
    root = math.sqrt(beta**2 + 14 * beta + 1)
    factor = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + root))
    if noise is not None:
        return factor * math.sqrt(large) * noise
    padded = torch.cat([values, values.new_zeros(small - values.numel())])
    return factor / math.sqrt(_marchenko_pastur_median(beta)) * float(padded.quantile(0.5))


@lru_cache(maxsize=256)
def _marchenko_pastur_median(beta: float) -> float:
    """Return the median of the Marchenko–Pastur law of aspect ratio `beta` in (0, 1]."""
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    middle, half = (low + high) / 2, (high - low) / 2

    # x = middle − half·cos t takes the square roots out of the density's ends
    def density(t: float) -> float:
        x = middle - half * math.cos(t)
        return (half * math.sin(t)) ** 2 / (2 * math.pi * beta * x) if x > 0 else half / math.pi

    angle = brentq(lambda t: quad(density, 0.0, t)[0] - 0.5, 0.0, math.pi, xtol=1e-14)
    return middle - half * math.cos(angle)
