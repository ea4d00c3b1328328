"""The sparsity terms of JumpReLU and standard SAEs on active pairs; SAELens' on dense latents."""

from typing import Any

import torch
from torch import Tensor

from saerepgeo.sae.sparse.active_pairs import ActiveLatents, padded
from saerepgeo.sae.sparse.pair_products import gather_scalars
from saerepgeo.types import Bool, Float

__all__ = ["jumprelu_terms", "standard_terms"]


def jumprelu_terms(
    sae: Any,
    active: ActiveLatents,
    sae_in: Float[Tensor, "point d_model"],
    l0_coefficient: float,
    dead_mask: Bool[Tensor, "d_sae"] | None,
) -> dict[str, Tensor]:
    """Return the l0 term in the mode of the config, and the pre-activation term where it is on.

    step: mean_p Σ_j H(pre − θ_j); quadratic: mean_p 2/L·(Σ_j H(pre − θ_j) − L)²; tanh:
    mean_p Σ_j tanh(c·z·‖W_dec,j‖). H has SAELens' straight-through gradient, which is zero for all
    pairs that are not in `active`.
    """
    from sae_lens.saes.jumprelu_sae import Step

    cfg, pairs = sae.cfg, active.pairs
    n_points = max(pairs.n_points, 1)
    if cfg.jumprelu_sparsity_loss_mode == "tanh":
        norms = gather_scalars(sae.W_dec.norm(dim=1), pairs.columns, pairs)
        total = torch.tanh(cfg.jumprelu_tanh_scale * active.values * norms).sum()
        terms = {"l0_loss": l0_coefficient * total / n_points}
    else:
        threshold = gather_scalars(sae.threshold, pairs.columns, pairs)
        row = (active.pre[None], threshold, sae.bandwidth, cfg.jumprelu_ste_to_input)
        is_active: Tensor = Step.apply(*row)[0]
        if cfg.jumprelu_sparsity_loss_mode == "quadratic":
            l0 = padded(ActiveLatents(is_active, is_active, pairs)).values.sum(dim=1)
            terms = {
                "l0_loss": l0_coefficient * (2 / cfg.target_l0 * (l0 - cfg.target_l0) ** 2).mean()
            }
        else:
            terms = {"l0_loss": l0_coefficient * is_active.sum() / n_points}
    if cfg.pre_act_loss_coefficient is not None:
        terms["pre_act_loss"] = _pre_act_loss(sae, sae_in, dead_mask)
    return terms


def _pre_act_loss(sae: Any, sae_in: Tensor, dead_mask: Tensor | None) -> Tensor:
    """c · mean_p Σ_{dead j} relu(θ_j − pre)·‖W_dec,j‖, from the dead latents' columns alone."""
    dead = torch.empty(0) if dead_mask is None else dead_mask.nonzero().squeeze(1)
    if dead.numel() == 0:
        return sae_in.new_zeros(())
    hidden = (sae_in - sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc[:, dead]
    missing = (sae.threshold[dead] - (hidden + sae.b_enc[dead])).relu()
    per_point = (missing * sae.W_dec[dead].norm(dim=1)).sum(dim=-1)
    loss: Tensor = sae.cfg.pre_act_loss_coefficient * per_point.mean()
    return loss


def standard_terms(sae: Any, active: ActiveLatents, l1_coefficient: float) -> dict[str, Tensor]:
    """Return mean_p ‖z_j·‖W_dec,j‖‖_p with the norm of the config (1 is the usual L1)."""
    pairs = active.pairs
    weighted = active.values * gather_scalars(sae.W_dec.norm(dim=1), pairs.columns, pairs)
    rows = padded(ActiveLatents(weighted, weighted, pairs)).values
    return {"l1_loss": (l1_coefficient * rows.norm(p=sae.cfg.lp_norm, dim=-1)).mean()}
