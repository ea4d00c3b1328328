"""Triton kernels of the sparse products: bags of rows, weighted and summed, or dotted.

A bag is what CSR calls a row: bag b holds the entries offsets[b] .. offsets[b + 1]. One program
owns one bag (and a block of dimensions) and adds its entries in order in float32 (float64 for
float64). Nothing is added atomically: the same input gives the same bits. The decoder's forward and
both weight gradients are `bag_sum`; the gradient of the values is `bag_dots`. Tested in Triton's
interpreter; the speed on a GPU has not been measured.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language import constexpr

from saerepgeo.types import Float, Int

_ENTRIES = constexpr(16)  # rows held at once: enough loads in flight to hide the memory's latency
_WIDTH = 256  # dimensions a program holds at once


def _jit(function: Callable[..., None]) -> Any:
    """Compile the function itself: a wrapper (jaxtyping's, in tests) would hide its globals."""
    return triton.jit(inspect.unwrap(function))


@_jit
def _bag_sum_kernel(
    values, columns, offsets, rows, out, width, block_width: constexpr, dtype: constexpr
):
    bag = tl.program_id(0).to(tl.int64)
    dims = tl.program_id(1) * block_width + tl.arange(0, block_width)
    is_dim = dims < width
    stop = tl.load(offsets + bag + 1)
    total = tl.zeros((block_width,), dtype)
    for first in range(tl.load(offsets + bag), stop, _ENTRIES):
        entries = first + tl.arange(0, _ENTRIES)
        is_entry = entries < stop
        which = tl.load(columns + entries, mask=is_entry, other=0).to(tl.int64)
        weights = tl.load(values + entries, mask=is_entry, other=0.0).to(dtype)
        mask = is_entry[:, None] & is_dim[None, :]
        tile = tl.load(rows + which[:, None] * width + dims[None, :], mask=mask, other=0.0)
        total += tl.sum(weights[:, None] * tile.to(dtype), axis=0)
    tl.store(out + bag * width + dims, total.to(out.dtype.element_ty), mask=is_dim)


@_jit
def _bag_dots_kernel(
    dense, columns, offsets, rows, out, width, block_width: constexpr, dtype: constexpr
):
    bag = tl.program_id(0).to(tl.int64)
    stop = tl.load(offsets + bag + 1)
    for first in range(tl.load(offsets + bag), stop, _ENTRIES):
        entries = first + tl.arange(0, _ENTRIES)
        is_entry = entries < stop
        which = tl.load(columns + entries, mask=is_entry, other=0).to(tl.int64)
        total = tl.zeros((_ENTRIES,), dtype)
        for left in range(0, width, block_width):
            dims = left + tl.arange(0, block_width)
            is_dim = dims < width
            own = tl.load(dense + bag * width + dims, mask=is_dim, other=0.0).to(dtype)
            mask = is_entry[:, None] & is_dim[None, :]
            tile = tl.load(rows + which[:, None] * width + dims[None, :], mask=mask, other=0.0)
            total += tl.sum(own[None, :] * tile.to(dtype), axis=1)
        tl.store(out + entries, total.to(out.dtype.element_ty), mask=is_entry)


def bag_sum(
    values: Float[Tensor, "entry"],
    columns: Int[Tensor, "entry"],
    offsets: Int[Tensor, "bag_plus_1"],
    rows: Float[Tensor, "row width"],
) -> Float[Tensor, "bag width"]:
    """Return Σ_e values[e] · rows[columns[e]] over the entries e of every bag; zero for none."""
    n_bags, width = offsets.shape[0] - 1, rows.shape[1]
    out = rows.new_empty(n_bags, width)
    if out.numel() > 0:
        block_width, dtype = _settings(rows)
        tensors = values.contiguous(), columns.contiguous(), offsets, rows.contiguous(), out
        grid = (n_bags, triton.cdiv(width, block_width))
        with torch.cuda.device_of(rows):  # Triton launches on the current one
            _bag_sum_kernel[grid](*tensors, width, block_width, dtype)
    return out


def bag_dots(
    dense: Float[Tensor, "bag width"],
    columns: Int[Tensor, "entry"],
    offsets: Int[Tensor, "bag_plus_1"],
    rows: Float[Tensor, "row width"],
) -> Float[Tensor, "entry"]:
    """Return ⟨dense[b], rows[columns[e]]⟩ for the entries e of every bag b."""
    n_bags, width = dense.shape
    out = rows.new_zeros(columns.shape[0])
    if out.numel() > 0 and width > 0:
        tensors = dense.contiguous(), columns.contiguous(), offsets, rows.contiguous(), out
        with torch.cuda.device_of(rows):
            _bag_dots_kernel[(n_bags,)](*tensors, width, *_settings(rows))
    return out


def _settings(rows: Tensor) -> tuple[int, Any]:
    """Return how many dimensions a block has, and the dtype that sums are formed in."""
    dtype = tl.float64 if rows.dtype == torch.float64 else tl.float32
    return min(_WIDTH, triton.next_power_of_2(rows.shape[1])), dtype
