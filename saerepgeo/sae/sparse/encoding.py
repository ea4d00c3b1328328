"""The sparse route of each architecture: pre-activations to active latents, and when it pays.

The dense route costs five more products of size point × d_model × d_sae and several passes over
dense latents; the sparse one reads a row of weights for each pair. Which is faster depends on how
many latents are active.
"""

from typing import Any, cast

import torch
from torch import Tensor

from saerepgeo.sae.sparse.active_pairs import ActiveLatents, PairedLatents, Pairs, padded
from saerepgeo.sae.sparse.autograd import Select, gather_scalars, preactivations
from saerepgeo.sae.sparse.selection import select_above, select_batch_topk
from saerepgeo.sae.sparse.topk import encode_topk

__all__ = ["encode_sparse", "max_share"]

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


def encode_sparse(sae: Any, sae_in: Tensor, is_training: bool) -> PairedLatents | None:
    """Return the active latents of normalized points, or None where the dense route is faster.

    TopK always has them; BatchTopK, JumpReLU and ReLU where at most `max_share` are active. Other
    architectures have no sparse route.
    """
    architecture = sae.cfg.architecture()
    gain = sae.W_dec.norm(dim=-1) if _rescales_by_norm(sae) else None
    if architecture == "topk":
        return encode_topk(sae_in, sae.W_enc, sae.b_enc, sae.cfg.k, _input_bias(sae), gain)
    if architecture == "jumprelu":
        return _jumprelu(sae, sae_in)
    if architecture == "standard":
        return _above(sae, sae_in, torch.zeros((), device=sae_in.device), None)
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        if not is_training and sae.topk_threshold > 0:
            return _above(sae, sae_in, sae.topk_threshold, gain)
        if architecture == "batchtopk":
            return _batch_topk(sae, sae_in, gain)
    return None


def _above(sae: Any, sae_in: Tensor, low: Tensor, gain: Tensor | None) -> PairedLatents | None:
    def select(*scored: Tensor) -> tuple[Tensor, Pairs] | None:
        centered, weight, bias = scored
        return select_above(centered, weight, bias, low, max_share(weight))

    found = _preactivations(sae, sae_in, gain, select)
    if found is None:
        return None
    pre, pairs = found
    return padded(ActiveLatents(pre * (pre > low), pre, pairs))


def _batch_topk(sae: Any, sae_in: Tensor, gain: Tensor | None) -> PairedLatents | None:
    n_kept = int(sae.cfg.k * len(sae_in))

    def select(*scored: Tensor) -> tuple[Tensor, Pairs] | None:
        centered, weight, bias = scored
        return select_batch_topk(centered, weight, bias, n_kept, max_share(weight))

    found = _preactivations(sae, sae_in, gain, select)
    return None if found is None else padded(ActiveLatents(found[0], *found))


def _jumprelu(sae: Any, sae_in: Tensor) -> PairedLatents | None:
    """z = pre·[pre > θ]; where gradients are wanted the window around θ is kept as well.

    The straight-through estimators live within half a bandwidth of the threshold. They are
    SAELens' own functions, applied to the pairs.
    """
    from sae_lens.saes.jumprelu_sae import JumpReLU

    reach = sae.bandwidth / 2 if torch.is_grad_enabled() else 0.0
    low = sae.threshold.detach() - reach

    def select(*scored: Tensor) -> tuple[Tensor, Pairs] | None:
        centered, weight, bias = scored
        return select_above(centered, weight, bias, low, max_share(weight))

    found = _preactivations(sae, sae_in, None, select)
    if found is None:
        return None
    pre, pairs = found
    threshold = gather_scalars(sae.threshold, pairs.columns, pairs)
    # one row of all pairs: SAELens sums the threshold's gradient over the rows
    row = JumpReLU.apply(pre[None], threshold, sae.bandwidth, sae.cfg.jumprelu_ste_to_input)
    return padded(ActiveLatents(cast(Tensor, row)[0], pre, pairs))


def _preactivations(sae: Any, sae_in: Tensor, gain: Tensor | None, select: Select) -> Any:
    return preactivations(sae_in, sae.W_enc, sae.b_enc, _input_bias(sae), gain, select)


def _input_bias(sae: Any) -> Tensor | None:
    return cast(Tensor, sae.b_dec) if sae.cfg.apply_b_dec_to_input else None


def _rescales_by_norm(sae: Any) -> bool:
    return bool(getattr(sae.cfg, "rescale_acts_by_decoder_norm", False))
