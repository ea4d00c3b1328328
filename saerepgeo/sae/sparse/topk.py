"""TopK encoder: the k largest pre-activations of every point, found without keeping the others.

The pre-activations are computed densely (in bf16 under autocast) and the k largest are kept as
(value, index) pairs; whatever comes after reads just those pairs (see `differentiable`).
"""

import numpy as np
import torch
from torch import Tensor

from saerepgeo.sae.sparse.active_pairs import ActiveLatents, PairedLatents, Pairs, padded
from saerepgeo.sae.sparse.autograd import decode_pairs, gather_scalars, preactivations
from saerepgeo.sae.sparse.selection import score_chunks
from saerepgeo.types import Float, Int

__all__ = ["dense_topk", "encode_topk", "gather_scalars", "select_topk", "sparse_decode"]

_GROUP = 8  # columns per group of the pre-selection; a power of two


def select_topk(
    scores: Float[Tensor, "point d_sae"], k: int
) -> tuple[Float[Tensor, "point k"], Int[Tensor, "point k"]]:
    """Return the k largest scores of every point and where they are, in no order.

    On the CPU wide rows are first reduced to the maxima of groups of eight columns: at least k
    scores reach the k-th largest maximum, and few more do; the slow selection sees those alone.
    Exact; among equal scores either may be taken.

    >>> values, indices = select_topk(torch.tensor([[1.0, 5.0, 3.0]]), 2)
    >>> sorted(values[0].tolist()), sorted(indices[0].tolist())
    ([3.0, 5.0], [1, 2])
    """
    d_sae = scores.shape[1]
    if scores.device.type == "cpu" and d_sae % _GROUP == 0 and d_sae // _GROUP >= 4 * k:
        found = _select_by_groups(scores, k)
        if found is not None:
            return found
    values, indices = scores.topk(k, dim=1, sorted=False)
    return values, indices


def _select_by_groups(scores: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """Return the k largest of every row, or None where the maxima of groups tell too little."""
    n_points, d_sae = scores.shape
    # NumPy's partition and comparisons are vectorised, torch's are not. The bits of 16-bit floats
    # are ordered as the floats are, except below zero.
    keys = (scores.view(torch.int16) if scores.element_size() == 2 else scores).detach().numpy()
    n_groups = d_sae // _GROUP
    maxima = keys.reshape(n_points, _GROUP, n_groups).max(axis=1)
    kth = n_groups - k
    least = np.partition(maxima, kth, axis=1)[:, kth, None]
    if not (least >= 0).all():  # too few positive scores, or not a number
        return None
    rows, groups = np.divmod(np.flatnonzero(~(maxima < least)), n_groups)
    members = (rows * d_sae + groups)[:, None] + np.arange(0, d_sae, n_groups)
    reaches = ~(keys.reshape(-1)[members] < least[rows])  # true of what is not a number
    flat = members[reaches]
    offsets = np.searchsorted(flat // d_sae, np.arange(n_points + 1))
    width = int(np.diff(offsets).max(initial=k))
    if width > 4 * k:  # many equal scores
        return None
    # k to `width` candidates a row; what is read past a row's end does not count
    places = torch.from_numpy(np.minimum(offsets[:-1, None] + np.arange(width), len(flat) - 1))
    candidates = torch.from_numpy(flat)[places] if len(flat) else places
    kept = torch.from_numpy(np.arange(width) < np.diff(offsets)[:, None])
    values = scores.reshape(-1)[candidates].where(kept, -torch.inf)
    values, picked = values.topk(k, dim=1, sorted=False)
    return values, candidates.gather(1, picked) % d_sae


def dense_topk(
    inputs: Float[Tensor, "point d_model"],
    weight: Float[Tensor, "d_model d_sae"],
    bias: Float[Tensor, "d_sae"],
    k: int,
) -> tuple[Float[Tensor, "point k"], Int[Tensor, "point k"]]:
    """Return the k largest of inputs @ weight + bias, in the autocast dtype where there is one.

    On the CPU a few points at a time, so that their scores are selected from while still in cache.
    """
    parts = [select_topk(scores, k) for scores in score_chunks(inputs, weight, bias)]
    values, indices = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(indices)


def encode_topk(
    inputs: Float[Tensor, "point d_model"],
    weight: Float[Tensor, "d_model d_sae"],
    bias: Float[Tensor, "d_sae"],
    k: int,
    input_bias: Float[Tensor, "d_model"] | None = None,
    gain: Float[Tensor, "d_sae"] | None = None,
) -> PairedLatents:
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

    def select(centered: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Pairs]:
        scores, indices = dense_topk(centered, weight, bias, k)
        return scores.reshape(-1), Pairs.of_rows(indices, d_sae)

    found = preactivations(inputs, weight, bias, input_bias, gain, select)
    assert found is not None  # TopK's selection never gives up
    pre, pairs = found
    return padded(ActiveLatents(pre.relu(), pre, pairs))


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
    pairs = Pairs.of_rows(indices, weight.shape[0])
    return decode_pairs(values.reshape(-1), pairs, weight)
