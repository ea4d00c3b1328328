"""What counts as a cloud of points: the border where bad input is turned away."""

import torch
from torch import Tensor

from saerepgeo.types import Float, SparseLatents

__all__ = ["as_float64", "check_finite"]


def check_finite(x: Tensor, name: str = "points") -> None:
    """Raise ValueError unless `x`, of any shape and layout, is floating point and finite."""
    if not x.is_floating_point():
        raise ValueError(f"`{name}` must be floating point, got {x.dtype}: convert with `.float()`")
    # a layout that stores few entries is finite exactly if they are
    stored = x if x.layout == torch.strided else x.values()
    if not bool(stored.isfinite().all()):
        n_bad = int((~stored.isfinite()).sum())
        raise ValueError(f"`{name}` must be finite, got {n_bad} NaN or infinite entries: drop them")


def as_float64(points: Tensor | SparseLatents, name: str = "points") -> Float[Tensor, "point dim"]:
    """Return `points` as a dense float64 matrix on its own device; differentiable.

    Raises ValueError for integers, non-finite entries and anything that is not a matrix.
    """
    x = points.to_dense() if isinstance(points, SparseLatents) else points
    if x.ndim != 2:
        raise ValueError(f"`{name}` must be a matrix [point, dim], got shape {tuple(x.shape)}")
    check_finite(x, name)
    return (x if x.layout == torch.strided else x.to_dense()).double()
