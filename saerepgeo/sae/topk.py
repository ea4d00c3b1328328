"""TopK encoder and sparse decoder: only the encoder's forward is dense, every gradient is sparse.

A TopK autoencoder step costs six products of size point × d_model × d_sae when written with dense
tensors. Five of them touch k of d_sae latents per point. Here the pre-activations are computed
densely (in bf16 under autocast), the k largest are kept as (value, index) pairs, and decoder,
decoder gradient, encoder gradient and the gradient of the values read just those pairs.

The sparse products are the two halves of `embedding_bag`, which is a weighted sum of rows: it runs
in parallel on the CPU and on CUDA, without a compiler at run time.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from saerepgeo.types import Float, Int, SparseLatents

__all__ = ["encode_topk", "gather_rows", "select_topk", "sparse_decode"]

_GROUP = 8  # columns per group of the pre-selection; a power of two
_ROWS = 512  # points whose scores are held at once on the CPU
_SUM = 0  # mode number of embedding_bag's gradient kernel


def _bag_offsets(indices: Tensor) -> Tensor:
    n_points, k = indices.shape
    return torch.arange(0, n_points * k, max(k, 1), device=indices.device)[:n_points]


def _sum_rows(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Return Σ_i values[p, i] · rows[indices[p, i]] for every point p."""
    return functional.embedding_bag(
        indices.reshape(-1),
        rows,
        _bag_offsets(indices),
        per_sample_weights=values.reshape(-1),
        mode="sum",
    )


def _scatter_outer(values: Tensor, indices: Tensor, dense: Tensor, d_sae: int) -> Tensor:
    """Return Σ_{p, i: indices[p, i] = j} values[p, i] · dense[p] for every latent j."""
    flat = indices.reshape(-1)
    order = torch.argsort(flat.int(), stable=True)  # stable: the sum's order is reproducible
    counts = torch.bincount(flat, minlength=d_sae)
    offsets = counts.cumsum(0) - counts
    points = torch.div(order, indices.shape[1], rounding_mode="floor")
    weights = values.reshape(-1)[order]
    return functional.embedding_bag(points, dense, offsets, per_sample_weights=weights, mode="sum")


def _dot_rows(dense: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Return ⟨dense[p], rows[indices[p, i]]⟩ for every kept pair."""
    n_points, k = indices.shape
    bags = torch.arange(n_points, device=indices.device).repeat_interleave(k)
    dots = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        dense.contiguous(), rows, indices.reshape(-1), _bag_offsets(indices), bags, _SUM
    )
    return dots.view(n_points, k)


def _sum_by_latent(values: Tensor, indices: Tensor, d_sae: int) -> Tensor:
    """Return Σ_{p, i: indices[p, i] = j} values[p, i] for every latent j."""
    return torch.bincount(indices.reshape(-1), values.reshape(-1), minlength=d_sae).to(values)


def select_topk(
    scores: Float[Tensor, "point d_sae"], k: int
) -> tuple[Float[Tensor, "point k"], Int[Tensor, "point k"]]:
    """Return the k largest scores of every point and where they are, in no order.

    On the CPU wide rows are first reduced to the maxima of groups of eight columns: the k largest
    scores lie in the k groups with the largest maxima, so that the slow selection sees few columns.
    Exact; among equal scores either may be taken.

    >>> values, indices = select_topk(torch.tensor([[1.0, 5.0, 3.0]]), 2)
    >>> sorted(values[0].tolist()), sorted(indices[0].tolist())
    ([3.0, 5.0], [1, 2])
    """
    d_sae = scores.shape[1]
    n_groups = d_sae // _GROUP
    if scores.device.type != "cpu" or d_sae % _GROUP or n_groups < 4 * k:
        values, indices = scores.topk(k, dim=1, sorted=False)
        return values, indices
    maxima = scores
    while maxima.shape[1] > n_groups:
        half = maxima.shape[1] // 2
        maxima = torch.maximum(maxima[:, :half], maxima[:, half:])
    groups = maxima.topk(k, dim=1, sorted=False).indices
    members = torch.arange(0, d_sae, n_groups, device=scores.device)
    columns = (groups[:, :, None] + members).flatten(1)
    values, picked = scores.gather(1, columns).topk(k, dim=1, sorted=False)
    return values, columns.gather(1, picked)


def _dense_topk(inputs: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of inputs @ weight + bias, in the autocast dtype where there is one.

    On the CPU a few points at a time, so that their scores are selected from while still in cache.
    """
    device = weight.device.type
    is_low = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_low else weight.dtype
    inputs, columns, bias = inputs.to(dtype), weight.to(dtype).t(), bias.to(dtype)
    n_rows = _ROWS if device == "cpu" else max(inputs.shape[0], 1)
    with torch.autocast(device, enabled=False):
        parts = [
            select_topk(functional.linear(rows, columns, bias), k) for rows in inputs.split(n_rows)
        ]
    values, indices = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(indices)


class _TopKEncoder(torch.autograd.Function):
    """values, indices = relu(top-k((x − b_in) W_enc + b_enc) · gain)."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        input_bias: Tensor | None,
        gain: Tensor | None,
        k: int,
    ) -> tuple[Tensor, Tensor]:
        centred = inputs if input_bias is None else inputs - input_bias
        # scaling the weights costs d_model·d_sae, scaling the scores point·d_sae
        scaled = (weight, bias) if gain is None else (weight * gain, bias * gain)
        values, indices = _dense_topk(centred, *scaled, k)
        values = values.to(weight.dtype).relu_()
        ctx.save_for_backward(centred, weight, input_bias, gain, values, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        centred, weight, input_bias, gain, values, indices = ctx.saved_tensors
        d_sae = weight.shape[1]
        grad = grads[0].to(weight.dtype) * (values > 0)
        grad_gain = None
        if gain is not None:
            picked = gain[indices]
            # values = pre·gain, so pre is read back from them; a zero gain never has values > 0
            pre = torch.where(values > 0, values / picked, torch.zeros_like(values))
            grad_gain = _sum_by_latent(grad * pre, indices, d_sae)
            grad = grad * picked
        grad_bias = _sum_by_latent(grad, indices, d_sae)
        grad_weight = _scatter_outer(grad, indices, centred.to(weight.dtype), d_sae).t()
        # Σ_p ∂loss/∂x_p needs only the column sums of the sparse gradient
        grad_input_bias = None if input_bias is None else -torch.mv(weight, grad_bias)
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = _sum_rows(grad, indices, weight.t().contiguous())
        return grad_inputs, grad_weight, grad_bias, grad_input_bias, grad_gain, None


class _SparseDecoder(torch.autograd.Function):
    """recons[p] = Σ_i values[p, i] · W_dec[indices[p, i]]."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, weight)
        return _sum_rows(values, indices, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        values, indices, weight = ctx.saved_tensors
        grad = grads[0].to(weight.dtype)
        grad_values = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_values = _dot_rows(grad, indices, weight)
        if ctx.needs_input_grad[2]:
            grad_weight = _scatter_outer(values, indices, grad, weight.shape[0])
        return grad_values, None, grad_weight


class _RowGather(torch.autograd.Function):
    """out[p, i] = vector[indices[p, i]]; the gradient is a sum by latent."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.length = vector.shape[0]
        return vector[indices]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (indices,) = ctx.saved_tensors
        return _sum_by_latent(grads[0], indices, ctx.length), None


def encode_topk(
    inputs: Float[Tensor, "point d_model"],
    weight: Float[Tensor, "d_model d_sae"],
    bias: Float[Tensor, "d_sae"],
    k: int,
    input_bias: Float[Tensor, "d_model"] | None = None,
    gain: Float[Tensor, "d_sae"] | None = None,
) -> SparseLatents:
    """Return the k largest pre-activations of every point, negative ones set to zero.

    z = relu(top-k(((x − b_in) W + b) · gain)); under autocast the product runs in the autocast
    dtype and the values come back in the dtype of `weight`. `k = d_sae` keeps all.

    Raises ValueError where `k` is not within 1..d_sae.

    Source: Gao et al. 2024 (arXiv 2406.04093), section 2.3.

    >>> weight = torch.eye(3)
    >>> latents = encode_topk(torch.tensor([[1.0, 3.0, 2.0]]), weight, torch.zeros(3), k=2)
    >>> latents.to_dense()
    tensor([[0., 3., 2.]])
    """
    d_sae = weight.shape[1]
    if not 1 <= k <= d_sae:
        raise ValueError(f"`k` must lie within 1..d_sae = {d_sae}, got {k}")
    values, indices = _TopKEncoder.apply(inputs, weight, bias, input_bias, gain, k)
    return SparseLatents(values, indices, d_sae)


def sparse_decode(
    values: Float[Tensor, "point k"],
    indices: Int[Tensor, "point k"],
    weight: Float[Tensor, "d_sae d_model"],
) -> Float[Tensor, "point d_model"]:
    """Return Σ_i values[p, i] · weight[indices[p, i]]; zero for a point without active latents.

    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> sparse_decode(torch.tensor([[2.0, 3.0]]), torch.tensor([[0, 1]]), rows)
    tensor([[2., 3.]])
    """
    recons: Tensor = _SparseDecoder.apply(values.to(weight.dtype), indices, weight)
    return recons


def gather_rows(
    vector: Float[Tensor, "d_sae"], indices: Int[Tensor, "point k"]
) -> Float[Tensor, "point k"]:
    """Return `vector[indices]` with a gradient that needs no sort and no atomic adds.

    >>> gather_rows(torch.tensor([5.0, 7.0]), torch.tensor([[1, 1, 0]]))
    tensor([[7., 7., 5.]])
    """
    gathered: Tensor = _RowGather.apply(vector, indices)
    return gathered
