"""The sparsity and auxiliary terms that each SAE architecture trains with, besides the MSE.

Terms that read latents and pre-activations alone are computed by SAELens' own code, or on active
pairs as SAELens does on dense latents. Terms that reconstruct (dead latents, gate path, nested
widths) are written here in the units of the residuals, so that they stay comparable with the MSE
under any input normalization; without normalization they equal SAELens' (tested).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.sae.normalization import InputNormalization
from saerepgeo.sae.sparse.active_pairs import ActiveLatents, as_active, padded
from saerepgeo.sae.sparse.pair_products import gather_scalars
from saerepgeo.types import Bool, Float, Int, SparseLatents, to_dense

Terms = dict[str, Tensor]


class ForwardOutput(NamedTuple):
    """One forward pass of a training step, as the terms read it."""

    residuals: Float[Tensor, "point d_model"]
    sae_in: Float[Tensor, "point d_model"]
    """The residuals after input normalization."""
    recons: Float[Tensor, "point d_model"]
    latents: "Float[Tensor, 'point d_sae'] | SparseLatents"
    hidden_pre: Float[Tensor, "point d_sae"] | None
    """Pre-activations; None on the sparse route, which recomputes those of dead latents."""
    normalization: InputNormalization
    dead_mask: Bool[Tensor, "d_sae"] | None


def sparsity_terms(sae: Any, output: ForwardOutput, step: int, scale: float) -> Terms:
    """Return the named terms of the architecture of `sae`, scaled by their coefficients.

    The coefficients warm up linearly, as SAELens has it; all are multiplied by `scale`.
    """
    architecture = sae.cfg.architecture()
    weights = _coefficients(sae, step, scale)
    if architecture in ("topk", "abstopk", "batchtopk"):
        return {"auxiliary_reconstruction_loss": scale * _dead_latents_term(sae, output)}
    if architecture == "gated":
        return _gated_terms(sae, output, weights["l1"], scale)
    if architecture == "matryoshka_batchtopk":
        return _matryoshka_terms(sae, output, step, scale)
    if not isinstance(output.latents, SparseLatents):
        terms = _sae_lens_terms(sae, output, weights, step)
    elif architecture == "jumprelu":
        terms = _jumprelu_terms(sae, output, as_active(output.latents), weights["l0"])
    else:
        terms = _standard_terms(sae, as_active(output.latents), weights["l1"])
    if "pre_act_loss" in terms:  # its coefficient is none of `weights`
        terms["pre_act_loss"] = scale * terms["pre_act_loss"]
    return terms


def _coefficients(sae: Any, step: int, scale: float) -> dict[str, float]:
    values = {}
    for name, coefficient in sae.get_coefficients().items():
        value, warm_up = coefficient if isinstance(coefficient, tuple) else (float(coefficient), 0)
        share = min(1.0, step / warm_up) if warm_up else 1.0
        values[name] = scale * float(value) * share
    return values


def _sae_lens_terms(sae: Any, output: ForwardOutput, weights: dict[str, float], step: int) -> Terms:
    from sae_lens.saes.sae import TrainStepInput

    return sae.calculate_aux_loss(
        step_input=TrainStepInput(output.sae_in, weights, output.dead_mask, step, False),
        feature_acts=output.latents,
        hidden_pre=output.hidden_pre,
        sae_out=output.recons,
    )


def dead_latents_term(
    cfg: Any, output: ForwardOutput, predict: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Let the strongest dead latents predict what the living ones left over.

    α · min(n_dead/k_aux, 1) · mean_p ‖ê_p − (x_p − x̂_p)‖², k_aux = d_model/2. `predict` gives ê, in
    the normalized space, from the mask of the dead latents and k_aux (see `decode_dead`).
    Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2. Zero without dead latents.
    """
    n_dead = 0 if output.dead_mask is None else int(output.dead_mask.sum())
    if output.dead_mask is None or n_dead == 0:
        return output.recons.new_zeros(())
    k_aux = output.residuals.shape[1] // 2
    left_over = (output.residuals - output.recons).detach()
    error = predict(output.dead_mask, k_aux) * output.normalization.scale - left_over
    return cfg.aux_loss_coefficient * min(n_dead / k_aux, 1.0) * error.pow(2).sum(dim=1).mean()


def decode_dead(
    cfg: Any,
    sae_in: Float[Tensor, "point d_model"],
    dead: Int[Tensor, "dead"],
    parameter: Callable[[str], Tensor],
    keep: Callable[[Tensor], Tensor],
) -> Float[Tensor, "point d_model"]:
    """Return what those pre-activations of the latents `dead` decode to that `keep` leaves."""
    decoder, hidden = parameter("W_dec")[dead], _dead_hidden(cfg, sae_in, dead, parameter)
    if cfg.rescale_acts_by_decoder_norm:
        norms = decoder.norm(dim=1)
        decoder, hidden = decoder / norms[:, None], hidden * norms
    return keep(hidden) @ decoder


def _dead_hidden(
    cfg: Any, sae_in: Tensor, dead: Tensor, parameter: Callable[[str], Tensor]
) -> Tensor:
    """Only the dead columns are computed: all of them would undo the gain of the sparse route."""
    weight, bias = parameter("W_enc")[:, dead], parameter("b_enc")[dead]
    centered = sae_in - parameter("b_dec") * cfg.apply_b_dec_to_input
    return (centered @ weight).to(bias.dtype) + bias


def _dead_latents_term(sae: Any, output: ForwardOutput) -> Tensor:
    def predict(dead_mask: Tensor, k_aux: int) -> Tensor:
        def keep(hidden: Tensor) -> Tensor:
            if k_aux >= hidden.shape[1]:
                return hidden
            strength = hidden.abs() if sae.cfg.architecture() == "abstopk" else hidden
            kept = strength.topk(k_aux, dim=1, sorted=False).indices
            return torch.zeros_like(hidden).scatter(1, kept, hidden.gather(1, kept))

        dead = dead_mask.nonzero().squeeze(1)
        return decode_dead(sae.cfg, output.sae_in, dead, partial(getattr, sae), keep)

    return dead_latents_term(sae.cfg, output, predict)


def _gated_terms(sae: Any, output: ForwardOutput, l1: float, scale: float) -> Terms:
    """Penalize the gate path and let it reconstruct (Rajamanoharan et al. 2024, equation 8)."""
    centered = output.sae_in - sae.b_dec * sae.cfg.apply_b_dec_to_input
    gate = torch.relu(centered @ sae.W_enc + sae.b_gate)
    error = output.normalization.undo(gate @ sae.W_dec + sae.b_dec) - output.residuals
    return {
        "l1_loss": l1 * (gate * sae.W_dec.norm(dim=1)).sum(dim=1).mean(),
        "auxiliary_reconstruction_loss": scale * error.pow(2).sum(dim=1).mean(),
    }


def _matryoshka_terms(sae: Any, output: ForwardOutput, step: int, scale: float) -> Terms:
    """Reconstruct from every nested width (Bussmann et al. 2025), and revive dead latents.

    The nested reconstructions are data terms, like the MSE, and `scale` leaves them alone.
    """
    terms: Terms = {}
    latents, inner, start = to_dense(output.latents), sae.b_dec, 0
    if sae.cfg.rescale_acts_by_decoder_norm:
        latents = latents * (1 / sae.W_dec.norm(dim=-1))
    for width in sae.cfg.matryoshka_widths[:-1]:
        inner = latents[:, start:width] @ sae.W_dec[start:width] + inner
        error = output.normalization.undo(inner) - output.residuals
        terms[f"inner_mse_loss_{width}"] = error.pow(2).sum(dim=1).mean()
        start = width
    if not sae.cfg.use_matryoshka_aux_loss:
        own = {"auxiliary_reconstruction_loss": _dead_latents_term(sae, output)}
    else:
        own = _sae_lens_terms(sae, output, {}, step)
    return terms | {name: scale * term for name, term in own.items()}


def _jumprelu_terms(
    sae: Any, output: ForwardOutput, active: ActiveLatents, l0_coefficient: float
) -> Terms:
    """Return the l0 term in the mode of the config, and the pre-activation term where it is on.

    step: mean_p Σ_j H(pre − θ_j); quadratic: mean_p 2/L·(Σ_j H(pre − θ_j) − L)²; tanh:
    mean_p Σ_j tanh(c·z·‖W_dec,j‖). H has SAELens' straight-through gradient, which is zero for all
    pairs that are not in `active`.
    """
    from sae_lens.saes.jumprelu_sae import Step

    cfg, pairs = sae.cfg, active.pairs
    n_points = max(pairs.n_points, 1)
    threshold = gather_scalars(sae.threshold, pairs)
    row = (active.pre[None], threshold, sae.bandwidth, cfg.jumprelu_ste_to_input)
    if cfg.jumprelu_sparsity_loss_mode == "tanh":
        norms = gather_scalars(sae.W_dec.norm(dim=1), pairs)
        l0 = torch.tanh(cfg.jumprelu_tanh_scale * active.values * norms).sum() / n_points
    elif cfg.jumprelu_sparsity_loss_mode == "quadratic":
        is_active = Step.apply(*row)[0]
        counts = padded(ActiveLatents(is_active, is_active, pairs)).values.sum(dim=1)
        l0 = (2 / cfg.target_l0 * (counts - cfg.target_l0) ** 2).mean()
    else:
        l0 = Step.apply(*row)[0].sum() / n_points
    terms = {"l0_loss": l0_coefficient * l0}
    if cfg.pre_act_loss_coefficient is not None:
        terms["pre_act_loss"] = cfg.pre_act_loss_coefficient * _pre_act_loss(sae, output)
    return terms


def _pre_act_loss(sae: Any, output: ForwardOutput) -> Tensor:
    """mean_p Σ_{dead j} relu(θ_j − pre)·‖W_dec,j‖."""
    if output.dead_mask is None or not bool(output.dead_mask.any()):
        return output.sae_in.new_zeros(())
    dead = output.dead_mask.nonzero().squeeze(1)
    hidden = _dead_hidden(sae.cfg, output.sae_in, dead, partial(getattr, sae))
    missing = (sae.threshold[dead] - hidden).relu()
    return (missing * sae.W_dec[dead].norm(dim=1)).sum(dim=-1).mean()


def _standard_terms(sae: Any, active: ActiveLatents, l1_coefficient: float) -> Terms:
    """Return mean_p ‖z_j·‖W_dec,j‖‖_p with the norm of the config (1 is the usual L1)."""
    pairs = active.pairs
    weighted = active.values * gather_scalars(sae.W_dec.norm(dim=1), pairs)
    rows = padded(ActiveLatents(weighted, weighted, pairs)).values
    return {"l1_loss": (l1_coefficient * rows.norm(p=sae.cfg.lp_norm, dim=-1)).mean()}
