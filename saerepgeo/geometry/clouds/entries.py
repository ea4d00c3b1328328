"""Entries of points: finite, and in a unit in which their squares neither under- nor overflow."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from saerepgeo.types import Float


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply in the precision of the points, whatever autocast the caller is under."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def check_finite(x: Tensor, name: str = "points") -> None:
    """Raise ValueError unless `x`, of any shape and layout, is floating point and finite."""
    if not x.is_floating_point():
        raise ValueError(f"`{name}` must be floating point, got {x.dtype}: convert with `.float()`")
    # a layout that stores few entries is finite exactly if they are
    stored = x.coalesce() if x.layout == torch.sparse_coo else x
    stored = stored if x.layout == torch.strided else stored.values()
    # a sum is finite only of finite entries, and takes a fifth of the time
    if not math.isfinite(float(stored.detach().sum())) and not bool(stored.isfinite().all()):
        n_bad = int((~stored.isfinite()).sum())
        raise ValueError(f"`{name}` must be finite, got {n_bad} NaN or infinite entries: drop them")


def check_matrix(x: Tensor, name: str = "points") -> None:
    """Raise ValueError unless `x`, of any layout, is a finite floating point matrix."""
    if x.ndim != 2:
        raise ValueError(f"`{name}` must be a matrix [point, dim], got shape {tuple(x.shape)}")
    check_finite(x, name)


def unit_of(*parts: Float[Tensor, "..."]) -> float:
    """Return the power of two at the largest entry: dividing by it rounds nothing.

    Entries are below 2 in this unit; 1 where nothing differs from 0. Raises ValueError for entries
    that are not finite.
    """
    ends = [abs(float(end)) for x in parts if x.numel() for end in x.detach().aminmax()]
    if not all(map(math.isfinite, ends)):
        raise ValueError("`points` must be finite, got NaN or infinite entries: drop them")
    top = max(ends, default=0.0)
    # the inverse must be finite too
    least = torch.finfo(parts[0].dtype).tiny
    return math.ldexp(0.5, math.frexp(max(top, least))[1]) if top else 1.0


def centered(points: Float[Tensor, "point dim"]) -> tuple[Float[Tensor, "point dim"], float]:
    """Return points about their centroid in units of `unit_of`, and that unit; differentiable."""
    unit = unit_of(points)
    x = points / unit
    return (x.sub_(x.mean(0)) if len(x) else x), unit


def check_squares(*parts: Float[Tensor, "..."], name: str = "points") -> None:
    """Raise ValueError where sums of the squares of entries leave the range of their precision."""
    unit, info = unit_of(*parts), torch.finfo(parts[0].dtype)
    if not info.tiny <= unit * unit <= info.max / 4 / max(1, sum(x.numel() for x in parts)):
        raise ValueError(
            f"`{name}` must have squares that {info.dtype} holds, got entries of about {unit:.0e}: "
            "scale them"
        )


def in_float32(points: Float[Tensor, "point dim"]) -> Float[Tensor, "point dim"]:
    """Return points in float32, or as they are where it does not hold their distances."""
    return points.float() if 2**-60 < unit_of(points) < 2**60 else points
