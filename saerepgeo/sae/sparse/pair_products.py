"""Products of active pairs with dense rows, and the encoder and decoder made of them.

Five of the six products of a training step touch the active latents alone. The pre-activations are
computed densely, those that can matter are kept as pairs, and all the rest reads just those pairs:
by Triton on CUDA where it is installed, elsewhere by the two halves of torch's `embedding_bag`.
Sums over the points of a latent use no atomic adds: the same input gives the same bits.
"""

import os
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from saerepgeo.sae.sparse.active_pairs import Decoder, Encoder, Pairs, PerLatent, PerPair, Points
from saerepgeo.types import Float

Select = Callable[[Tensor, Tensor, Tensor], "tuple[Tensor, Pairs] | None"]
"""From centered points [point, d_model], weight [d_model, d_sae] and bias [d_sae] to the scores of
the pairs that are kept, and the pairs; None where they are too many."""
Found = tuple[Tensor, Tensor, Pairs]
"""Pre-activations of the pairs, centered points, the pairs."""


def triton_kernels(tensor: Tensor) -> ModuleType | None:
    """Return the Triton kernels where they can run on `tensor`, else None.

    They can on CUDA with Triton installed, and on the CPU under TRITON_INTERPRET=1 (for tests).
    """
    return _kernels() if tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1" else None


@cache
def _kernels() -> ModuleType | None:
    try:
        from saerepgeo.sae.sparse import kernels
    except ImportError:
        return None
    return kernels


def sum_rows(values: PerPair, pairs: Pairs, rows: Decoder) -> Points:
    """Return Σ_{(p, j)} values · rows[j] for every point p; zero for a point without pairs."""
    columns, offsets = pairs.columns, pairs.offsets
    if (kernels := triton_kernels(rows)) is not None:
        return kernels.bag_sum(values, columns, offsets, rows)
    return functional.embedding_bag(
        columns, rows, offsets, per_sample_weights=values, mode="sum", include_last_offset=True
    )


def scatter_outer(values: PerPair, pairs: Pairs, dense: Points) -> Decoder:
    """Return Σ_{(p, j)} values · dense[p] for every latent j; zero for a latent without pairs."""
    order, points, offsets = pairs.by_latent
    return sum_rows(values.index_select(0, order), Pairs(points, offsets, pairs.n_points), dense)


def dot_rows(dense: Points, pairs: Pairs, rows: Decoder) -> PerPair:
    """Return ⟨dense[p], rows[j]⟩ for every pair (p, j)."""
    if (kernels := triton_kernels(dense)) is not None:
        return kernels.bag_dots(dense, pairs.columns, pairs.offsets, rows)
    mode = 0  # a sum; the public `embedding_bag` gives this half in its backward pass alone
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        dense.contiguous(), rows, pairs.columns, pairs.offsets[:-1], pairs.points, mode
    )


def sum_by_latent(values: PerPair, pairs: Pairs) -> PerLatent:
    """Return Σ_{(p, j)} values for every latent j."""
    if values.device.type == "cpu":  # elsewhere bincount adds atomically
        return torch.bincount(pairs.columns, values, minlength=pairs.d_sae).to(values)
    order, _, offsets = pairs.by_latent
    return torch.segment_reduce(values.index_select(0, order), "sum", offsets=offsets.long())


def _product_dtype(weight: Tensor) -> torch.dtype:
    """Return bfloat16 under bfloat16 autocast: reading rows, which takes the time, is halved.

    As in autocast's dense products, sums are accumulated in float32 and rounded once.
    """
    device = weight.device.type
    is_low = torch.is_autocast_enabled(device)
    is_low = is_low and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if is_low else weight.dtype


class _PairEncoder(torch.autograd.Function):
    """pre[(p, j)] = (x_p − b_in)·W_enc[:, j] + b_enc[j], found before; here are its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        input_bias: Tensor | None,
        found: Found,
    ) -> Tensor:
        pre, centered, ctx.pairs = found
        ctx.dtype = _product_dtype(weight)
        ctx.save_for_backward(centered, weight, input_bias)
        return pre

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        centered, weight, input_bias = ctx.saved_tensors
        grad, pairs = grads[0].to(weight.dtype), ctx.pairs
        grad_bias = sum_by_latent(grad, pairs)
        low = grad.to(ctx.dtype), pairs, centered.to(ctx.dtype)
        grad_weight = scatter_outer(*low).t().to(weight.dtype)
        # Σ_p ∂loss/∂x_p needs only the column sums of the sparse gradient
        grad_input_bias = None if input_bias is None else -torch.mv(weight, grad_bias)
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = sum_rows(grad, pairs, weight.t().contiguous())
        return grad_inputs, grad_weight, grad_bias, grad_input_bias, None


class _PairDecoder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:
        ctx.pairs, ctx.dtype = pairs, _product_dtype(weight)
        ctx.save_for_backward(values, weight)
        return sum_rows(values.to(ctx.dtype), pairs, weight.to(ctx.dtype)).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        values, weight = ctx.saved_tensors
        grad = grads[0].to(weight.dtype)
        grad_values = grad_weight = None
        if ctx.needs_input_grad[0]:
            # torch has no fast dot products of bfloat16 rows on the CPU
            dtype = weight.dtype if grad.device.type == "cpu" else ctx.dtype
            grad_values = dot_rows(grad.to(dtype), ctx.pairs, weight.to(dtype)).to(weight.dtype)
        if ctx.needs_input_grad[1]:
            low = values.to(ctx.dtype), ctx.pairs, grad.to(ctx.dtype)
            grad_weight = scatter_outer(*low).to(weight.dtype)
        return grad_values, grad_weight, None


class _ScalarGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vector: Tensor, pairs: Pairs) -> Tensor:
        ctx.pairs = pairs
        return vector[pairs.columns]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return sum_by_latent(grads[0], ctx.pairs), None


def preactivations(
    inputs: Points,
    weight: Encoder,
    bias: PerLatent,
    input_bias: Float[Tensor, "d_model"] | None,
    gain: PerLatent | None,
    select: Select,
) -> tuple[PerPair, Pairs] | None:
    """Return ((x_p − b_in)·W_j + b_j)·gain_j of the pairs (p, j) that `select` keeps.

    Differentiable in all tensors; which pairs are kept is taken as given. None where `select`
    gives none. Computed in the dtype of `select`, returned in that of `weight`.
    """
    with torch.no_grad():
        centered = inputs if input_bias is None else inputs - input_bias
        # scaling the weights costs d_model·d_sae, scaling the scores point·d_sae
        scaled = (weight, bias) if gain is None else (weight * gain, bias * gain)
        selected = select(centered, *scaled)
        if selected is None:
            return None
        pre, pairs = selected
        pre = pre.to(weight.dtype)
        if gain is not None:
            picked = gain[pairs.columns]
            pre = torch.where(picked > 0, pre / picked, torch.zeros_like(pre))
    pre = _PairEncoder.apply(inputs, weight, bias, input_bias, (pre, centered, pairs))
    return pre if gain is None else pre * gather_scalars(gain, pairs), pairs


def decode_pairs(values: PerPair, pairs: Pairs, weight: Decoder) -> Points:
    """Return Σ_{(p, j)} values · weight[j] for every point; zero for a point without pairs."""
    return _PairDecoder.apply(values.to(weight.dtype), weight, pairs)


def gather_scalars(vector: PerLatent, pairs: Pairs) -> PerPair:
    """Return the number that `vector` has for the latent of each pair, without atomic adds.

    >>> gather_scalars(torch.tensor([5.0, 7.0]), Pairs.of_rows(torch.tensor([[1, 1, 0]]), 2))
    tensor([7., 7., 5.])
    """
    return _ScalarGather.apply(vector, pairs)
