"""Frequent Directions: the spectrum of a stream of points in memory that does not grow with it."""

from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Points
from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.geometry.clouds.entries import check_squares, unit_of
from saerepgeo.types import Float


class Sketch(NamedTuple):
    """Few rows B that stand for many rows A: 0 ≤ ‖Ax‖² − ‖Bx‖² ≤ `shrinkage` for unit x.

    So σ_i(B)² ≤ σ_i(A)² ≤ σ_i(B)² + `shrinkage`, which is at most ‖A − A_k‖²_F / (`size` + 1 − k)
    for every k ≤ `size`, and 0 where A has rank `size` at most.
    """

    rows: Float[Tensor, "row dim"]
    """B, fewer than 2·`size` rows, float64."""
    shrinkage: Float[Tensor, ""]
    size: int


def empty_sketch(dim: int, size: int, device: torch.device | str | None = None) -> Sketch:
    """Return the sketch of no rows of `dim` entries, to be kept by `size` directions.

    Raises ValueError for a `size` below 1 or a negative `dim`.
    """
    if size < 1 or dim < 0:
        raise ValueError(f"`size` must be ≥ 1 and `dim` ≥ 0, got {size} and {dim}")
    rows = torch.zeros(0, dim, dtype=torch.float64, device=device)
    return Sketch(rows, rows.new_zeros(()), size)


def extend_sketch(sketch: Sketch, points: Points) -> Sketch:
    """Return the sketch with `points` appended to the rows it stands for.

    When 2·`size` rows B have gathered, B ← √(Σ² − δI)₊ Vᵀ with B = U Σ Vᵀ and δ = σ²_{size+1}, and
    the shrinkage grows by δ. Any split of the stream into batches gives the same sketch. Time
    O(size · dim) a point, memory O(size · dim). Raises ValueError for another number of columns,
    and for integer or non-finite points. Source: Ghashami, Liberty, Phillips & Woodruff 2016,
    *Frequent Directions: Simple and Deterministic Matrix Sketching*, algorithm 2 and theorem 1.1.

    >>> stream = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    >>> sketch = extend_sketch(extend_sketch(empty_sketch(8, 8), stream[:300]), stream[300:])
    >>> torch.allclose(torch.linalg.svdvals(sketch.rows).float(), torch.linalg.svdvals(stream))
    True
    """
    x = as_float64(points).detach()
    if x.shape[1] != sketch.rows.shape[1]:
        raise ValueError(f"`points` must have {sketch.rows.shape[1]} columns, got {x.shape[1]}")
    start = 0
    while start < len(x):
        taken = x[start : start + 2 * sketch.size - len(sketch.rows)]
        start += len(taken)
        sketch = _shrunk(sketch._replace(rows=torch.cat([sketch.rows, taken])))
    return sketch


def merge_sketches(x: Sketch, y: Sketch) -> Sketch:
    """Return the sketch of the rows that both stand for; the bounds of both add up.

    Raises ValueError where sizes or columns differ.

    >>> one, two = (extend_sketch(empty_sketch(3, 4), torch.eye(3)) for _ in range(2))
    >>> torch.linalg.svdvals(merge_sketches(one, two).rows).square()
    tensor([2.0000, 2.0000, 2.0000], dtype=torch.float64)
    """
    if x.size != y.size:
        raise ValueError(f"sketches of sizes {x.size} and {y.size} do not merge")
    merged = extend_sketch(x, y.rows)
    return merged._replace(shrinkage=merged.shrinkage + y.shrinkage)


def _shrunk(sketch: Sketch) -> Sketch:
    rows, size = sketch.rows, sketch.size
    if len(rows) < 2 * size:
        return sketch
    unit = unit_of(rows)
    rows = rows / unit
    if rows.shape[1] <= size:
        return sketch._replace(rows=torch.linalg.qr(rows, mode="r").R * unit)
    # the square factor of the thin one first: a third of the time of a singular value
    # decomposition of the whole, and no squared condition number as in a Gram matrix
    basis, square = torch.linalg.qr(rows.T)
    _, values, directions = torch.linalg.svd(square.T)
    kept = values[: size + 1].square()
    delta = kept[size] if len(kept) > size else kept.new_zeros(())
    scales = (kept[:size] - delta).clamp(min=0).sqrt()
    if bool(delta > 0):
        check_squares(sketch.rows)
    new = scales[:, None] * (directions[:size] @ basis.T) * unit
    shrinkage = sketch.shrinkage + delta * unit * unit
    return sketch._replace(rows=new[scales > 0], shrinkage=shrinkage)
