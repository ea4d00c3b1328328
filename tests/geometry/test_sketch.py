"""Frequent Directions: the proven bounds, exact cases, splits and merges."""

import math
from inspect import unwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saerepgeo.geometry import singular_values
from saerepgeo.geometry.sketch import (
    Sketch,
    empty_sketch,
    extend_sketch,
    merge_sketches,
)

F64 = torch.float64


def stream(n: int, dim: int, decay: float = 0.8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=F64) * decay ** torch.arange(dim)


def sketch_of(points: Tensor, size: int, batch: int = 10**6) -> Sketch:
    sketch = empty_sketch(points.shape[1], size)
    for part in points.split(batch):
        sketch = extend_sketch(sketch, part)
    return sketch


def check_bounds(points: Tensor, sketch: Sketch) -> None:
    gap = torch.linalg.eigvalsh(points.T @ points - sketch.rows.T @ sketch.rows)
    rounding = 1e-12 * float(points.square().sum())
    assert -rounding <= float(gap[0])
    assert float(gap[-1]) <= float(sketch.shrinkage) + rounding
    tail = singular_values(points).square().flip(0).cumsum(0).flip(0)
    for k in range(sketch.size):
        assert float(sketch.shrinkage) <= float(tail[k]) / (sketch.size - k) + rounding


@pytest.mark.parametrize(("size", "decay"), [(1, 0.5), (6, 0.8), (6, 1.0), (15, 0.95)])
def test_bounds_hold(size: int, decay: float) -> None:
    points = stream(500, 30, decay)
    sketch = sketch_of(points, size)
    assert float(sketch.shrinkage) > 0
    assert len(sketch.rows) < 2 * size
    check_bounds(points, sketch)


def test_merged_sketch_keeps_the_bounds() -> None:
    points = stream(700, 30, 0.9)
    parts = points.split([40, 3, 657])
    sketch = empty_sketch(30, 8)
    for part in parts:
        sketch = merge_sketches(sketch, sketch_of(part, 8))
    check_bounds(points, sketch)


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 90), size=st.integers(1, 12))
def test_batches_make_no_difference(batch: int, size: int) -> None:
    points = stream(80, 10)
    whole, parts = sketch_of(points, size), sketch_of(points, size, batch)
    assert torch.equal(whole.rows, parts.rows)
    assert torch.equal(whole.shrinkage, parts.shrinkage)


@pytest.mark.parametrize("size", [10, 40])
def test_few_columns_are_exact(size: int) -> None:
    points = stream(300, 10)
    sketch = merge_sketches(sketch_of(points[:100], size), sketch_of(points[100:], size))
    assert float(sketch.shrinkage) == 0
    torch.testing.assert_close(
        singular_values(sketch.rows)[:10], singular_values(points), rtol=1e-12, atol=1e-12
    )


def test_low_rank_is_exact() -> None:
    points = stream(300, 7) @ stream(7, 200, 1.0, seed=1)
    sketch = sketch_of(points, 7, 32)
    values, expected = singular_values(sketch.rows)[:7], singular_values(points)[:7]
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=0)
    assert float(sketch.shrinkage) < 1e-20 * float(expected[0] ** 2)


def test_memory_does_not_grow_with_the_stream() -> None:
    sketch = empty_sketch(20, 4)
    for seed in range(30):
        sketch = extend_sketch(sketch, stream(50, 20, seed=seed))
        assert sketch.rows.untyped_storage().nbytes() <= 8 * 20 * 2 * 4


def test_degenerate_streams() -> None:
    nothing = extend_sketch(empty_sketch(5, 3), torch.zeros(0, 5))
    assert singular_values(nothing.rows).shape == (0,)
    zeros = sketch_of(torch.zeros(50, 5, dtype=F64), 3)
    assert float(singular_values(zeros.rows).sum() + zeros.shrinkage) == 0
    one = sketch_of(torch.ones(1, 5, dtype=F64), 3)
    assert float(singular_values(one.rows)) == pytest.approx(math.sqrt(5))
    equal = sketch_of(torch.ones(90, 5, dtype=F64), 1)
    assert float(singular_values(equal.rows).max()) == pytest.approx(math.sqrt(450))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(3, 4), "5 columns, got 4"),
        (torch.ones(3, 5, dtype=torch.long), "floating"),
        (torch.full((3, 5), math.nan), "finite"),
        (torch.ones(5), "matrix"),
    ],
)
def test_refusals(points: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unwrap(extend_sketch)(empty_sketch(5, 3), points)


def test_sizes_must_fit() -> None:
    with pytest.raises(ValueError, match="`size`"):
        empty_sketch(5, 0)
    with pytest.raises(ValueError, match="do not merge"):
        merge_sketches(empty_sketch(5, 3), empty_sketch(5, 4))
