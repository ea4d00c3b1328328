"""The sparse route of each architecture: pre-activations to active latents, and when it pays.

The dense route costs five more products of size point × d_model × d_sae and several passes over
dense latents; the sparse one reads a row of weights for each pair. Which is faster depends on how
many latents are active.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from saerepgeo.sae.sparse.active_pairs import ActiveLatents, PairedLatents, Pairs, padded
from saerepgeo.sae.sparse.pair_products import gather_scalars, preactivations
from saerepgeo.sae.sparse.selection import dense_topk, select_above, select_batch_topk
from saerepgeo.types import Float

MAX_SHARE = {"float32": 0.1, "autocast": 0.06, "cuda": 0.004}
"""Share of active latents up to which the sparse route is taken.

On the CPU the shares at which a training step took about as long by either route (576→4608, one
thread, batchtopk, jumprelu and standard; at a share of 0.007 the sparse one is 4–8 times faster).
On CUDA, where dense products are cheaper, an estimate from the bytes moved; not measured.
"""


def max_share(weight: Tensor) -> float:
    """Return the share of active latents up to which the sparse route is taken."""
    device = weight.device.type
    if device != "cpu":
        return MAX_SHARE["cuda"]
    return MAX_SHARE["autocast" if torch.is_autocast_enabled(device) else "float32"]


def encode_sparse(
    sae: Any, sae_in: Tensor, gain: Tensor | None, is_training: bool
) -> PairedLatents | None:
    """Return the active latents of normalized points, or None where the dense route is faster.

    `gain` multiplies the pre-activations of the TopK family. TopK always has active latents;
    BatchTopK, JumpReLU and ReLU where at most `max_share` are active. Other architectures have no
    sparse route.
    """
    architecture = sae.cfg.architecture()
    input_bias = sae.b_dec if sae.cfg.apply_b_dec_to_input else None
    if architecture == "topk":
        return encode_topk(sae_in, sae.W_enc, sae.b_enc, sae.cfg.k, input_bias, gain)

    def above(low: Tensor, gain: Tensor | None = None) -> tuple[Tensor, Pairs] | None:
        select = partial(select_above, low=low, max_share=max_share(sae.W_enc))
        return preactivations(sae_in, sae.W_enc, sae.b_enc, input_bias, gain, select)

    if architecture == "jumprelu":
        # the straight-through estimators live within half a bandwidth of the threshold
        reach = sae.bandwidth / 2 if torch.is_grad_enabled() else 0.0
        return _jumprelu(sae, above(sae.threshold.detach() - reach))
    if architecture == "standard":
        return _cut(above(low := torch.zeros((), device=sae_in.device)), low)
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        if not is_training and sae.topk_threshold > 0:
            return _cut(above(sae.topk_threshold, gain), sae.topk_threshold)
        if architecture == "batchtopk":
            n_kept, limit = int(sae.cfg.k * len(sae_in)), max_share(sae.W_enc)
            select = partial(select_batch_topk, n_kept=n_kept, max_share=limit)
            found = preactivations(sae_in, sae.W_enc, sae.b_enc, input_bias, gain, select)
            return None if found is None else padded(ActiveLatents(found[0], *found))
    return None


def _cut(found: tuple[Tensor, Pairs] | None, low: Tensor) -> PairedLatents | None:
    """z = pre·[pre > low]: a selection in lower precision may have let others pass."""
    if found is None:
        return None
    pre, pairs = found
    return padded(ActiveLatents(pre * (pre > low), pre, pairs))


def _jumprelu(sae: Any, found: tuple[Tensor, Pairs] | None) -> PairedLatents | None:
    """z = pre·[pre > θ] by SAELens' own function, applied to the pairs."""
    from sae_lens.saes.jumprelu_sae import JumpReLU

    if found is None:
        return None
    pre, pairs = found
    threshold = gather_scalars(sae.threshold, pairs)
    # one row of all pairs: SAELens sums the threshold's gradient over the rows
    row = JumpReLU.apply(pre[None], threshold, sae.bandwidth, sae.cfg.jumprelu_ste_to_input)
    return padded(ActiveLatents(row[0], pre, pairs))


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
