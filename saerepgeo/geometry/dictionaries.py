"""The dictionary that knows nothing: the baseline of every statement about a trained one."""

import copy
from typing import Any

import torch
from torch import Tensor

from saerepgeo.types import Float

__all__ = ["random_dictionary"]


@torch.no_grad()
def random_dictionary(
    sae: Any,
    residuals: Float[Tensor, "point d_model"] | None = None,
    generator: torch.Generator | None = None,
) -> Any:
    """Return an SAE of the same shape and sparsity whose directions are random.

    Decoder rows are uniform on the unit sphere, the encoder is the decoder's transpose, and the
    points are centred at the old `b_dec`. What such a dictionary shows too is no finding about the
    trained one: it lifts intrinsic dimensions and saturates ranks already.

    TopK and BatchTopK keep their k. ReLU, JumpReLU and gated SAEs get one threshold t, the same for
    all latents, such that as many latents are active on `residuals` as in the trained SAE:
    `b_enc = −t`, `threshold = t` or `b_gate = −t`. Ties and the floor t ≥ 0 of JumpReLU aside, the
    mean l0 is the same to within one activation.

    Args:
        sae: a SAELens SAE, of inference or training form; it is not changed.
        residuals: what its `encode` takes; needed for architectures without k.
        generator: source of randomness, on the CPU; by default one seeded with 0.

    Raises:
        ValueError: an architecture without k and no `residuals`, or residuals that give no l0.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    cfg = copy.deepcopy(sae.cfg)
    # Made afresh: a copied SAE with input normalisation writes into the original.
    random = type(sae)(cfg).to(device=sae.W_dec.device, dtype=sae.W_dec.dtype)
    rows = torch.randn(sae.W_dec.shape, generator=generator, dtype=torch.float64)
    rows = (rows / rows.norm(dim=1, keepdim=True)).to(sae.W_dec)
    for parameter in random.parameters():
        parameter.zero_()
    random.W_dec.copy_(rows)
    random.W_enc.copy_(rows.T)
    random.b_dec.copy_(sae.b_dec)
    centre = 0.0 if cfg.apply_b_dec_to_input else random.W_dec @ random.b_dec
    if hasattr(cfg, "k"):
        random.b_enc.sub_(centre)
        return random.train(sae.training)
    if residuals is None or len(residuals) == 0:
        raise ValueError(
            f"`residuals` are needed to match the l0 of a {cfg.architecture()} SAE, got none."
        )
    threshold = _matching_threshold(sae, random, residuals, centre)
    _set_threshold(random, threshold, centre)
    return random.train(sae.training)


def _matching_threshold(sae: Any, random: Any, residuals: Tensor, centre: Tensor | float) -> Tensor:
    """Return the level that as many random pre-activations exceed as `sae` has active latents."""
    n_active = int((sae.encode(residuals) != 0).sum())
    projections = (random.process_sae_in(residuals) @ random.W_enc - centre).flatten()
    if not 0 < n_active < projections.numel():
        raise ValueError(
            f"`residuals` must leave some latents on and some off, got {n_active} of "
            f"{projections.numel()} active; check that they are what the SAE was trained on."
        )
    return projections.kthvalue(projections.numel() - n_active).values


def _set_threshold(random: Any, threshold: Tensor, centre: Tensor | float) -> None:
    if hasattr(random, "threshold"):
        random.b_enc.sub_(centre)
        random.threshold.fill_(float(threshold.clamp(min=0.0)))
    elif hasattr(random, "b_gate"):
        random.b_gate.sub_(centre).sub_(threshold)
        random.b_mag.sub_(centre)
    else:
        random.b_enc.sub_(centre).sub_(threshold)
