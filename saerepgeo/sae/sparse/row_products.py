"""The sparse products of an SAE step: weighted sums of rows, their transpose, and dot products.

On CUDA they run in Triton where it is installed. Elsewhere they are the two halves of torch's
`embedding_bag`, a weighted sum of rows, which needs no compiler at run time. Sums over the points
of a latent follow the order of the points and use no atomic adds: the same input gives the same
bits.
"""

import os
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from saerepgeo.sae.sparse.active_pairs import Pairs
from saerepgeo.types import Float

__all__ = ["dot_rows", "scatter_outer", "sum_by_latent", "sum_rows", "triton_kernels"]

_SUM = 0  # mode number of embedding_bag's gradient kernel


@cache
def _load_kernels() -> ModuleType | None:
    try:
        from saerepgeo.sae.sparse import kernels
    except ImportError:
        return None
    return kernels


def triton_kernels(tensor: Tensor) -> ModuleType | None:
    """Return the Triton kernels where they can run on `tensor`, else None.

    They can on CUDA with Triton installed, and on the CPU under TRITON_INTERPRET=1, which is how
    they are tested. Triton is not imported otherwise.
    """
    if not tensor.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return None
    return _load_kernels()


def sum_rows(
    values: Float[Tensor, "pair"], pairs: Pairs, rows: Float[Tensor, "d_sae d_model"]
) -> Float[Tensor, "point d_model"]:
    """Return Σ_{(p, j)} values · rows[j] for every point p; zero for a point without pairs."""
    return _bag_sum(values, pairs.columns, pairs.offsets, rows)


def scatter_outer(
    values: Float[Tensor, "pair"], pairs: Pairs, dense: Float[Tensor, "point d_model"]
) -> Float[Tensor, "d_sae d_model"]:
    """Return Σ_{(p, j)} values · dense[p] for every latent j; zero for a latent without pairs."""
    order, points, offsets = pairs.by_latent
    return _bag_sum(values.index_select(0, order), points, offsets, dense)


def dot_rows(
    dense: Float[Tensor, "point d_model"], pairs: Pairs, rows: Float[Tensor, "d_sae d_model"]
) -> Float[Tensor, "pair"]:
    """Return ⟨dense[p], rows[j]⟩ for every pair (p, j)."""
    kernels = triton_kernels(dense)
    if kernels is not None:
        dots: Tensor = kernels.bag_dots(dense, pairs.columns, pairs.offsets, rows)
        return dots
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        dense.contiguous(), rows, pairs.columns, pairs.offsets[:-1], pairs.points, _SUM
    )


def sum_by_latent(values: Float[Tensor, "pair"], pairs: Pairs) -> Float[Tensor, "d_sae"]:
    """Return Σ_{(p, j)} values for every latent j."""
    if not values.is_cuda:
        return torch.bincount(pairs.columns, values, minlength=pairs.d_sae).to(values)
    # bincount adds atomically on CUDA
    order, _, offsets = pairs.by_latent
    sorted_values = values.index_select(0, order)
    return torch.segment_reduce(sorted_values, "sum", offsets=offsets.long())


def _bag_sum(values: Tensor, columns: Tensor, offsets: Tensor, rows: Tensor) -> Tensor:
    """Return Σ_{e in bag b} values[e] · rows[columns[e]] for every bag b."""
    kernels = triton_kernels(rows)
    if kernels is not None:
        sums: Tensor = kernels.bag_sum(values, columns, offsets, rows)
        return sums
    return functional.embedding_bag(
        columns, rows, offsets, per_sample_weights=values, mode="sum", include_last_offset=True
    )
