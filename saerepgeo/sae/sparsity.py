"""The sparsity and auxiliary terms that each SAE architecture trains with, besides the MSE.

Terms that read latents and pre-activations alone are computed by SAELens' own code. Terms that
reconstruct (dead latents, gate path, nested widths) are written here in the units of the
residuals, so that they stay comparable with the MSE under any input normalization; without
normalization they equal SAELens' (tested).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.sae.normalization import InputNormalization
from saerepgeo.sae.sparse.active_pairs import ActiveLatents
from saerepgeo.sae.sparse.sparsity_terms import jumprelu_terms, standard_terms
from saerepgeo.types import Bool, Float

__all__ = ["ForwardOutput", "coefficients", "sparsity_terms"]


class ForwardOutput(NamedTuple):
    """One forward pass of a training step, as the terms read it."""

    residuals: Float[Tensor, "point d_model"]
    sae_in: Float[Tensor, "point d_model"]
    """The residuals after input normalization."""
    recons: Float[Tensor, "point d_model"]
    latents: Float[Tensor, "point d_sae"] | None
    """Dense latents; None on the sparse route."""
    hidden_pre: Float[Tensor, "point d_sae"] | None
    """Pre-activations; None on the sparse route, which recomputes those of dead latents."""
    normalization: InputNormalization
    dead_mask: Bool[Tensor, "d_sae"] | None
    active: ActiveLatents | None = None
    """Active latents as pairs; None on the dense route."""


def coefficients(sae: Any, step: int, scale: float) -> dict[str, float]:
    """Return the coefficients at a step: linear warm-up as SAELens has it, times `scale`."""
    values = {}
    for name, coefficient in sae.get_coefficients().items():
        value, warm_up = coefficient if isinstance(coefficient, tuple) else (float(coefficient), 0)
        share = min(1.0, step / warm_up) if warm_up else 1.0
        values[name] = scale * float(value) * share
    return values


def sparsity_terms(sae: Any, output: ForwardOutput, step: int, scale: float) -> dict[str, Tensor]:
    """Return the named terms of the architecture of `sae`, scaled by their coefficients."""
    architecture = sae.cfg.architecture()
    weights = coefficients(sae, step, scale)
    if architecture in ("topk", "abstopk", "batchtopk"):
        return {"auxiliary_reconstruction_loss": scale * _dead_latents_term(sae, output)}
    if architecture == "gated":
        return _gated_terms(sae, output, weights["l1"], scale)
    if architecture == "matryoshka_batchtopk":
        return _matryoshka_terms(sae, output, step, scale)
    terms: dict[str, Tensor]
    if output.active is None:
        terms = sae.calculate_aux_loss(
            step_input=_step_input(output, weights, step),
            feature_acts=output.latents,
            hidden_pre=output.hidden_pre,
            sae_out=output.recons,
        )
    elif architecture == "jumprelu":
        terms = jumprelu_terms(sae, output.active, output.sae_in, weights["l0"], output.dead_mask)
    else:
        terms = standard_terms(sae, output.active, weights["l1"])
    if "pre_act_loss" in terms:  # its coefficient is no entry of `coefficients`
        terms["pre_act_loss"] = scale * terms["pre_act_loss"]
    return terms


def _step_input(output: ForwardOutput, weights: dict[str, float], step: int) -> Any:
    from sae_lens.saes.sae import TrainStepInput

    return TrainStepInput(
        sae_in=output.sae_in,
        coefficients=weights,
        dead_neuron_mask=output.dead_mask,
        n_training_steps=step,
        is_logging_step=False,
    )


def _dead_latents_term(sae: Any, output: ForwardOutput) -> Tensor:
    """Let the strongest dead latents predict what the living ones left over.

    α · min(n_dead/k_aux, 1) · mean_p ‖ê_p − (x_p − x̂_p)‖², k_aux = d_model/2.
    Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2. Zero without dead latents.
    """
    dead = torch.empty(0) if output.dead_mask is None else output.dead_mask.nonzero().squeeze(1)
    if dead.numel() == 0:
        return output.recons.new_zeros(())
    k_aux = output.residuals.shape[1] // 2
    share = min(dead.numel() / k_aux, 1.0)
    decoder = sae.W_dec[dead]
    # only the dead columns are computed: a full pre-activation would undo the fused route's gain
    hidden = (output.sae_in - sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc[:, dead]
    hidden = hidden.to(decoder.dtype) + sae.b_enc[dead]
    if sae.cfg.rescale_acts_by_decoder_norm:
        decoder = decoder / decoder.norm(dim=1, keepdim=True)
        hidden = hidden * sae.W_dec[dead].norm(dim=1)
    if k_aux < dead.numel():
        strength = hidden.abs() if sae.cfg.architecture() == "abstopk" else hidden
        kept = strength.topk(k_aux, dim=1, sorted=False).indices
        hidden = torch.zeros_like(hidden).scatter(1, kept, hidden.gather(1, kept))
    left_over = (output.residuals - output.recons).detach()
    predicted = (hidden @ decoder) * output.normalization.scale
    term = (predicted - left_over).pow(2).sum(dim=1).mean()
    return sae.cfg.aux_loss_coefficient * share * term


def _gated_terms(sae: Any, output: ForwardOutput, l1: float, scale: float) -> dict[str, Tensor]:
    """Penalize the gate path and let it reconstruct (Rajamanoharan et al. 2024, equation 8)."""
    centered = output.sae_in - sae.b_dec * sae.cfg.apply_b_dec_to_input
    gate = torch.relu(centered @ sae.W_enc + sae.b_gate)
    via_gate = output.normalization.undo(gate @ sae.W_dec + sae.b_dec)
    return {
        "l1_loss": l1 * (gate * sae.W_dec.norm(dim=1)).sum(dim=1).mean(),
        "auxiliary_reconstruction_loss": scale
        * (via_gate - output.residuals).pow(2).sum(dim=1).mean(),
    }


def _matryoshka_terms(
    sae: Any, output: ForwardOutput, step: int, scale: float
) -> dict[str, Tensor]:
    """Reconstruct from every nested width (Bussmann et al. 2025), and revive dead latents.

    The nested reconstructions are data terms, like the MSE, and `scale` leaves them alone.
    """
    terms = {}
    for width, inner in sae._iterable_decode(output.latents, include_outer_loss=False):
        error = output.normalization.undo(inner) - output.residuals
        terms[f"inner_mse_loss_{width}"] = error.pow(2).sum(dim=1).mean()
    if not sae.cfg.use_matryoshka_aux_loss:
        terms["auxiliary_reconstruction_loss"] = scale * _dead_latents_term(sae, output)
        return terms
    own = sae.calculate_aux_loss(
        step_input=_step_input(output, {}, step),
        feature_acts=output.latents,
        hidden_pre=output.hidden_pre,
        sae_out=output.recons,
    )
    return terms | {name: scale * term for name, term in own.items()}
