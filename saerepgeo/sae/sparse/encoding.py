"""The sparse route of each architecture: pre-activations to active latents, and when it pays.

The dense route costs five more products of size point × d_model × d_sae; the sparse one reads a
row of weights for each pair. Which is faster depends on how many latents are active.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from saerepgeo.sae.sparse.active_pairs import Encoder, PairedLatents, Pairs, PerLatent, padded
from saerepgeo.sae.sparse.pair_products import gather_scalars, preactivations
from saerepgeo.sae.sparse.selection import dense_topk, select_above, select_batch_topk
from saerepgeo.types import Float

MAX_SHARE = {"float32": 0.1, "autocast": 0.06, "cuda": 0.004}
"""Share of active latents up to which the sparse route is taken.

On the CPU where a training step took about as long by either route (576→4608, one thread; at a
share of 0.007 the sparse one is 4–8 times faster). On CUDA an estimate from the bytes moved.
"""


def max_share(weight: Tensor) -> float:
    """Return the share of active latents up to which the sparse route is taken."""
    if weight.device.type != "cpu":
        return MAX_SHARE["cuda"]
    return MAX_SHARE["autocast" if torch.is_autocast_enabled("cpu") else "float32"]


def encode_sparse(
    sae: Any, sae_in: Tensor, gain: Tensor | None, is_training: bool
) -> PairedLatents | None:
    """Return the active latents of normalized points, or None where the dense route is faster.

    `gain` multiplies the pre-activations of the TopK family. TopK always has active latents;
    BatchTopK, JumpReLU and ReLU where at most `max_share` are active; no other architecture has.
    """
    architecture, cfg = sae.cfg.architecture(), sae.cfg
    input_bias = sae.b_dec if cfg.apply_b_dec_to_input else None
    if architecture == "topk":
        return encode_topk(sae_in, sae.W_enc, sae.b_enc, cfg.k, input_bias, gain)
    low: Tensor | None = None
    if architecture == "jumprelu":
        # the straight-through estimators live within half a bandwidth of the threshold
        low = sae.threshold.detach() - (sae.bandwidth / 2 if torch.is_grad_enabled() else 0.0)
    elif architecture == "standard":
        low = torch.zeros((), device=sae_in.device)
    elif not is_training and hasattr(sae, "topk_threshold") and sae.topk_threshold > 0:
        low = sae.topk_threshold
    elif architecture != "batchtopk":
        return None
    share = max_share(sae.W_enc)
    if low is not None:
        select = partial(select_above, low=low, max_share=share)
    else:
        select = partial(select_batch_topk, n_kept=int(cfg.k * len(sae_in)), max_share=share)
    found = preactivations(sae_in, sae.W_enc, sae.b_enc, input_bias, gain, select)
    if found is None:
        return None
    pre, pairs = found
    values = pre
    if architecture == "jumprelu":
        from sae_lens.saes.jumprelu_sae import JumpReLU

        threshold = gather_scalars(sae.threshold, pairs)
        # one row of all pairs: SAELens sums the threshold's gradient over the rows
        row = pre[None], threshold, sae.bandwidth, cfg.jumprelu_ste_to_input
        values = JumpReLU.apply(*row)[0]
    elif low is not None:
        values = pre * (pre > low)  # a selection in lower precision may have let others pass
    return padded(values, pre, pairs)


def encode_topk(
    inputs: Float[Tensor, "point d_model"],
    weight: Encoder,
    bias: PerLatent,
    k: int,
    input_bias: Float[Tensor, "d_model"] | None = None,
    gain: PerLatent | None = None,
) -> PairedLatents:
    """Return the k largest pre-activations of every point, negative ones set to zero.

    z = relu(top-k(((x − b_in) W + b) · gain)), in the dtype of `weight`; `k = d_sae` keeps all.
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
    return padded(pre.relu(), pre, pairs)
