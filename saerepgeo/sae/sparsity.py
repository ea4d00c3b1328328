"""The sparsity and auxiliary terms that each SAE architecture trains with, besides the MSE.

Terms of latents and pre-activations alone are SAELens' own, or the same on active pairs. Terms that
reconstruct (dead latents, gate path, nested widths) are written here in the units of the residuals,
so that they stay comparable with the MSE under any input normalization; without it they equal
SAELens' (tested).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.sae.decoder_norms import one_for_zero
from saerepgeo.sae.normalization import InputNormalization
from saerepgeo.sae.sparse.active_pairs import ActiveLatents, Latents, Points, as_active, padded
from saerepgeo.sae.sparse.pair_products import gather_scalars
from saerepgeo.types import Bool, Float, Int, SparseLatents, to_dense

Terms = dict[str, Tensor]
Dead = Int[Tensor, "dead"]
Parameters = Callable[[str], Tensor]


class ForwardOutput(NamedTuple):
    """One forward pass of a training step, as the terms read it."""

    residuals: Points
    sae_in: Points
    """The residuals after input normalization."""
    recons: Points
    latents: Latents
    hidden_pre: Float[Tensor, "point d_sae"] | None
    """Pre-activations; None on the sparse route, which recomputes those of dead latents."""
    normalization: InputNormalization
    dead_mask: Bool[Tensor, "d_sae"] | None
    step: int
    scale: float
    n_dead: int | None = None
    """How many latents `dead_mask` marks, where the host knows."""

    @property
    def dead(self) -> Dead:
        """Which latents are dead, ascending."""
        if self.dead_mask is None or self.n_dead == 0:
            return torch.zeros(0, dtype=torch.long, device=self.recons.device)
        if self.n_dead is None:
            return self.dead_mask.nonzero().squeeze(1)
        return self.dead_mask.byte().sort(descending=True, stable=True).indices[: self.n_dead]

    @property
    def k_aux(self) -> int:
        """How many dead latents of a point are revived at once."""
        return self.residuals.shape[1] // 2

    def mean_error(self, normalized: Points) -> Float[Tensor, ""]:
        """Return mean_p ‖x̂_p − x_p‖² of reconstructions in the normalized space."""
        error = self.normalization.undo(normalized) - self.residuals
        return error.pow(2).sum(dim=1).mean()


def sparsity_terms(sae: Any, output: ForwardOutput) -> Terms:
    """Return the named terms of the architecture of `sae`, scaled by their coefficients.

    The coefficients warm up linearly with `output.step`; all are multiplied by `output.scale`.
    """
    architecture, scale = sae.cfg.architecture(), output.scale
    if architecture in ("topk", "abstopk", "batchtopk"):
        return {"auxiliary_reconstruction_loss": scale * _dead_latents_term(sae, output)}
    if architecture == "matryoshka_batchtopk":
        return _matryoshka_terms(sae, output)
    weights = {}
    for name, coefficient in sae.get_coefficients().items():
        value, warm_up = coefficient if isinstance(coefficient, tuple) else (coefficient, 0)
        share = min(1.0, output.step / warm_up) if warm_up else 1.0
        weights[name] = scale * float(value) * share
    if architecture == "gated":
        return _gated_terms(sae, output, weights["l1"])
    if not isinstance(output.latents, SparseLatents):
        terms = _sae_lens_terms(sae, output, weights)
    elif architecture == "jumprelu":
        terms = _jumprelu_terms(sae, output, as_active(output.latents), weights["l0"])
    else:
        terms = _standard_terms(sae, as_active(output.latents), weights["l1"])
    if "pre_act_loss" in terms:  # its coefficient is none of `weights`
        terms["pre_act_loss"] = scale * terms["pre_act_loss"]
    return terms


def _sae_lens_terms(sae: Any, output: ForwardOutput, weights: dict[str, float]) -> Terms:
    from sae_lens.saes.sae import TrainStepInput

    step_input = TrainStepInput(output.sae_in, weights, output.dead_mask, output.step, False)
    latents = {"feature_acts": output.latents, "hidden_pre": output.hidden_pre}
    return sae.calculate_aux_loss(step_input=step_input, sae_out=output.recons, **latents)


def dead_latents_term(
    cfg: Any, output: ForwardOutput, predict: Callable[[Tensor], Tensor]
) -> Float[Tensor, ""]:
    """Let the strongest dead latents predict what the living ones left over.

    α · min(n_dead/k_aux, 1) · mean_p ‖ê_p − (x_p − x̂_p)‖², k_aux = d_model/2. `predict` gives ê, in
    the normalized space, from the dead latents (see `decode_dead`). Zero without dead latents.
    Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2.
    """
    dead = output.dead
    if len(dead) == 0:
        return output.recons.new_zeros(())
    left_over = (output.residuals - output.recons).detach()
    error = predict(dead) * output.normalization.scale - left_over
    weight = cfg.aux_loss_coefficient * min(len(dead) / output.k_aux, 1.0)
    return weight * error.pow(2).sum(dim=1).mean()


def decode_dead(
    cfg: Any, sae_in: Points, dead: Dead, parameter: Parameters, keep: Callable[[Tensor], Tensor]
) -> Points:
    """Return what those pre-activations of the latents `dead` decode to that `keep` leaves."""
    decoder, hidden = parameter("W_dec")[dead], _dead_hidden(cfg, sae_in, dead, parameter)
    if cfg.rescale_acts_by_decoder_norm:
        norms = decoder.norm(dim=1)
        decoder, hidden = decoder / one_for_zero(norms)[:, None], hidden * norms
    return keep(hidden) @ decoder


def _dead_hidden(cfg: Any, sae_in: Tensor, dead: Tensor, parameter: Parameters) -> Tensor:
    """Only the dead columns are computed: all of them would undo the gain of the sparse route."""
    weight, bias = parameter("W_enc")[:, dead], parameter("b_enc")[dead]
    centered = sae_in - parameter("b_dec") * cfg.apply_b_dec_to_input
    return (centered @ weight).to(bias.dtype) + bias


def _dead_latents_term(sae: Any, output: ForwardOutput) -> Tensor:
    def keep(hidden: Tensor) -> Tensor:
        if output.k_aux >= hidden.shape[1]:
            return hidden
        strength = hidden.abs() if sae.cfg.architecture() == "abstopk" else hidden
        kept = strength.topk(output.k_aux, dim=1, sorted=False).indices
        return torch.zeros_like(hidden).scatter(1, kept, hidden.gather(1, kept))

    def predict(dead: Tensor) -> Tensor:
        return decode_dead(sae.cfg, output.sae_in, dead, partial(getattr, sae), keep)

    return dead_latents_term(sae.cfg, output, predict)


def _gated_terms(sae: Any, output: ForwardOutput, l1: float) -> Terms:
    """Penalize the gate path and let it reconstruct (Rajamanoharan et al. 2024, equation 8)."""
    centered = output.sae_in - sae.b_dec * sae.cfg.apply_b_dec_to_input
    gate = torch.relu(centered @ sae.W_enc + sae.b_gate)
    error = output.mean_error(gate @ sae.W_dec + sae.b_dec)
    return {
        "l1_loss": l1 * (gate * sae.W_dec.norm(dim=1)).sum(dim=1).mean(),
        "auxiliary_reconstruction_loss": output.scale * error,
    }


def _matryoshka_terms(sae: Any, output: ForwardOutput) -> Terms:
    """Reconstruct from every nested width (Bussmann et al. 2025), and revive dead latents.

    The nested reconstructions are data terms, like the MSE, and `scale` leaves them alone.
    """
    terms: Terms = {}
    latents, inner, start = to_dense(output.latents), sae.b_dec, 0
    if sae.cfg.rescale_acts_by_decoder_norm:
        latents = latents / one_for_zero(sae.W_dec.norm(dim=-1))
    for width in sae.cfg.matryoshka_widths[:-1]:
        inner = latents[:, start:width] @ sae.W_dec[start:width] + inner
        terms[f"inner_mse_loss_{width}"] = output.mean_error(inner)
        start = width
    if sae.cfg.use_matryoshka_aux_loss:
        own = _sae_lens_terms(sae, output, {})
    else:
        own = {"auxiliary_reconstruction_loss": _dead_latents_term(sae, output)}
    return terms | {name: output.scale * term for name, term in own.items()}


def _jumprelu_terms(
    sae: Any, output: ForwardOutput, active: ActiveLatents, l0_coefficient: float
) -> Terms:
    """Return the l0 term in the mode of the config, and the pre-activation term where it is on.

    step: mean_p Σ_j H(pre − θ_j); quadratic: mean_p 2/L·(Σ_j H(pre − θ_j) − L)²; tanh:
    mean_p Σ_j tanh(c·z·‖W_dec,j‖); pre-activations: mean_p Σ_{dead j} relu(θ_j − pre)·‖W_dec,j‖.
    H has SAELens' straight-through gradient, zero for all pairs that are not in `active`.
    """
    from sae_lens.saes.jumprelu_sae import Step

    cfg, pairs = sae.cfg, active.pairs
    n_points = max(pairs.n_points, 1)
    if cfg.jumprelu_sparsity_loss_mode == "tanh":
        norms = gather_scalars(sae.W_dec.norm(dim=1), pairs)
        l0 = torch.tanh(cfg.jumprelu_tanh_scale * active.values * norms).sum() / n_points
    else:
        threshold = gather_scalars(sae.threshold, pairs)
        row = active.pre[None], threshold, sae.bandwidth, cfg.jumprelu_ste_to_input
        is_active = Step.apply(*row)[0]
        l0 = is_active.sum() / n_points
    if cfg.jumprelu_sparsity_loss_mode == "quadratic":
        counts = padded(is_active, is_active, pairs).values.sum(dim=1)
        l0 = (2 / cfg.target_l0 * (counts - cfg.target_l0) ** 2).mean()
    terms = {"l0_loss": l0_coefficient * l0}
    if cfg.pre_act_loss_coefficient is not None:
        loss, dead = output.sae_in.new_zeros(()), output.dead
        if len(dead):
            hidden = _dead_hidden(cfg, output.sae_in, dead, partial(getattr, sae))
            missing = (sae.threshold[dead] - hidden).relu() * sae.W_dec[dead].norm(dim=1)
            loss = missing.sum(dim=-1).mean()
        terms["pre_act_loss"] = cfg.pre_act_loss_coefficient * loss
    return terms


def _standard_terms(sae: Any, active: ActiveLatents, l1_coefficient: float) -> Terms:
    """Return mean_p ‖z_j·‖W_dec,j‖‖_p with the norm of the config (1 is the usual L1)."""
    weighted = active.values * gather_scalars(sae.W_dec.norm(dim=1), active.pairs)
    rows = padded(weighted, weighted, active.pairs).values
    return {"l1_loss": (l1_coefficient * rows.norm(p=sae.cfg.lp_norm, dim=-1)).mean()}
