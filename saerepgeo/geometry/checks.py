"""What counts as a cloud of points: the border where bad input is turned away."""

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud, RowCloud
from saerepgeo.types import Float, SparseLatents

__all__ = ["as_float64", "check_finite", "count_points"]


def check_finite(x: Tensor, name: str = "points") -> None:
    """Raise ValueError unless `x`, of any shape and layout, is floating point and finite."""
    if not x.is_floating_point():
        raise ValueError(f"`{name}` must be floating point, got {x.dtype}: convert with `.float()`")
    # a layout that stores few entries is finite exactly if they are
    stored = x if x.layout == torch.strided else x.values()
    if not bool(stored.isfinite().all()):
        n_bad = int((~stored.isfinite()).sum())
        raise ValueError(f"`{name}` must be finite, got {n_bad} NaN or infinite entries: drop them")


def as_float64(
    points: Tensor | SparseLatents | Cloud, name: str = "points"
) -> Float[Tensor, "point dim"]:
    """Return `points` as a dense float64 matrix on its own device; differentiable.

    Takes what the cloud functions take: dense and torch sparse tensors, `SparseLatents`, and clouds
    that know their coordinates, which come up to a shift of all points.

    Raises ValueError for integers, non-finite entries and anything that is not a matrix.
    """
    if isinstance(points, Cloud):
        if not isinstance(points, RowCloud):
            raise ValueError(f"`{name}` must have coordinates, got distances only: pass the points")
        return points.coordinates()
    x = points.to_dense() if isinstance(points, SparseLatents) else points
    if x.ndim != 2:
        raise ValueError(f"`{name}` must be a matrix [point, dim], got shape {tuple(x.shape)}")
    check_finite(x, name)
    return (x if x.layout == torch.strided else x.to_dense()).double()


def count_points(points: Tensor | SparseLatents | Cloud) -> int:
    """Return the number of points, whatever holds them."""
    if isinstance(points, Cloud):
        return points.n_points
    return len(points.values if isinstance(points, SparseLatents) else points)
