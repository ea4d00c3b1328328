"""An SAE of any architecture as one module: stateless normalization around SAELens' parameters."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.sae.decoder_norms import DecoderNorms, local, one_for_zero
from saerepgeo.sae.normalization import CONSTANT, MODES, InputNormalization, normalize
from saerepgeo.sae.sparse.active_pairs import Latents, Pairs, Points, as_active
from saerepgeo.sae.sparse.encoding import encode_sparse
from saerepgeo.sae.sparse.pair_products import decode_pairs, gather_scalars
from saerepgeo.sae.sparsity import ForwardOutput, sparsity_terms
from saerepgeo.types import Bool, Float, SAEOutput, SparseLatents

PromptResiduals = Float[Tensor, "prompt position d_model"]


class Encoded(NamedTuple):
    """Latents, and what the input normalization took off the points they came from."""

    latents: Latents
    normalization: InputNormalization


class SAEModel(DecoderNorms):
    """x̂ = scale·(Σ_i z_i·W_dec,i + b_dec) + shift with z = encoder((x − shift)/scale).

    `sae` is a SAELens `TrainingSAE` and holds the parameters, in the normalized space. The input
    normalization is a pure function around it: any batch can be encoded and decoded in any order.
    TopK latents are `SparseLatents`; those of batchtopk, jumprelu and standard SAEs are where few
    are active (`encoding.max_share`); the others are dense tensors.

    `input_scale` is the constant f of "expected_average_only_in" (the SAE sees x·f).
    Raises ValueError where the normalization of `sae` is not one of `normalization.MODES`.
    """

    input_scale: Tensor
    is_trainable = True
    reads_context = False
    """Whether a point has latents only among the positions before it (`encode_prompts`)."""

    def __init__(self, sae: Any, input_scale: float = 1.0) -> None:
        super().__init__()
        mode: str = sae.cfg.normalize_activations
        if mode not in MODES:
            raise ValueError(
                f"`sae` must have its input normalization among {', '.join(MODES)}, got {mode!r}; "
                "fold it into the weights first"
            )
        if not (input_scale > 0 and input_scale < float("inf")):
            raise ValueError(f"`input_scale` must be positive and finite, got {input_scale}")
        if input_scale != 1.0 and mode not in CONSTANT:
            raise ValueError(
                "`input_scale` must be left out unless the SAE was trained with "
                f"expected_average_only_in, got {input_scale} for {mode!r}"
            )
        self.normalization = mode
        # SAELens' closures keep the last batch; a function of a module also pickles and copies
        sae.run_time_activation_norm_fn_in = sae.run_time_activation_norm_fn_out = _unchanged
        sae.reshape_fn_in = sae.reshape_fn_out = _unchanged
        self.sae = sae
        self.register_buffer("input_scale", torch.tensor(float(input_scale)))
        self._hold_norm()
        self._sync_placement()

    @property
    def d_in(self) -> int:
        """Width of the residuals."""
        return int(self.sae.cfg.d_in)

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return int(self.sae.cfg.d_sae)

    @property
    def architecture(self) -> str:
        """SAELens' name of the architecture, e.g. "topk"."""
        return str(self.sae.cfg.architecture())

    @property
    def metadata(self) -> dict[str, Any]:
        """What is recorded about the origin: model, hook, context size and so on."""
        return dict(self.sae.cfg.metadata.to_dict())

    @property
    def hook_name_out(self) -> str | None:
        """The hook that is reconstructed, where it is not the one that is read."""
        return None

    def encode(self, residuals: Points) -> Encoded:
        """Return the latents of residuals, and what `decode` needs to return to their units.

        A batchtopk SAE selects over the batch in training (under DDP each process over its own
        part, as in SAELens); in evaluation it applies its learned threshold, once there is one.
        """
        sae_in, normalization = self._normalize(residuals)
        return Encoded(self._encode(sae_in)[0], normalization)

    def encode_prompts(
        self, residuals: PromptResiduals, chosen: Bool[Tensor, "prompt position"]
    ) -> Encoded:
        """Return the latents of the chosen positions, prompt by prompt; the others give context."""
        return self.encode(residuals[chosen])

    def decode(
        self, latents: Latents, normalization: InputNormalization | None = None
    ) -> Float[Tensor, "point d_out"]:
        """Return reconstructions in residual units.

        `normalization` is what `encode` returned with the latents. ValueError where it is left out,
        unless it is the same for all points (none or constant) and the SAE can be trained.
        """
        recons = self._decode(latents)
        if self.is_trainable and self.normalization == "none":
            return recons  # undoing the identity would cost as much as the loss itself
        if normalization is not None:
            return normalization.undo(recons)
        if self.is_trainable and self.normalization in CONSTANT:
            return recons / self.input_scale
        raise ValueError(
            f"`normalization` must be given to decode a {self.architecture} SAE under "
            f"{self.normalization!r}, got None; pass the one that came with these latents"
        )

    def decode_alone(self, latents: Latents) -> Float[Tensor, "point d_out"]:
        """Return what latents that were never encoded decode to, e.g. those of a random walk.

        Only a normalization that all points share is undone: the rest stays in normalized units.
        """
        return self._decode(latents) / self.input_scale

    def forward(
        self,
        residuals: Points,
        dead_mask: Bool[Tensor, "d_sae"] | None = None,
        step: int = 0,
        coefficient_scale: float = 1.0,
        n_dead: int | None = None,
    ) -> SAEOutput:
        """Return reconstructions, latents and, in training mode, the architecture's own terms.

        `dead_mask` marks the latents that the auxiliary terms revive, `n_dead` in number (where it
        is left out, the host waits for the device to count them); `step` drives the warm-up of the
        coefficients; `coefficient_scale` multiplies all. The MSE is left to the caller. Raises
        ValueError in training mode where the SAE has no training form.
        """
        if not self.training:
            encoded = self.encode(residuals)
            return SAEOutput(self.decode(*encoded), encoded.latents, {})
        if not self.is_trainable:
            raise ValueError(
                f"a {self.architecture} SAE can be analysed but not trained here, got training "
                "mode; call eval()"
            )
        if self.architecture == "jumprelu":  # as SAELens does: below 0 negative latents would pass
            with torch.no_grad():
                self.sae.threshold.clamp_(min=0.0)
        sae_in, normalization = self._normalize(residuals)
        latents, hidden_pre = self._encode(sae_in)
        recons = self.decode(latents, normalization)
        found = sae_in, recons, latents, hidden_pre, normalization
        output = ForwardOutput(residuals, *found, dead_mask, step, coefficient_scale, n_dead)
        losses = self._own_terms(output)
        if hasattr(self.sae, "topk_threshold"):
            self._update_batchtopk_threshold(latents)
        return SAEOutput(recons, latents, losses)

    @torch.no_grad()
    def initialize_bias_(self, mean: Float[Tensor, "d_model"]) -> None:
        """Set the decoder bias to the mean of the residuals.

        Under a per-point normalization pass the mean of the normalized residuals.
        """
        factor = self.input_scale if self.normalization == "expected_average_only_in" else 1.0
        bias = local(self.sae.b_dec)
        bias.copy_(mean.to(bias) * factor)

    def _normalize(self, residuals: Tensor) -> tuple[Tensor, InputNormalization]:
        if residuals.shape[1] != self.d_in:
            raise ValueError(
                f"`residuals` must have width d_in = {self.d_in}, got {residuals.shape[1]}; "
                "is the SAE of another model or hook?"
            )
        return normalize(residuals.to(self.sae.W_dec.dtype), self.normalization, self.input_scale)

    def _encode(self, sae_in: Tensor) -> tuple[Tensor | SparseLatents, Tensor | None]:
        sae, gain = self.sae, self.decoder_norms() if self.rescales_by_norm else None
        if (sparse := encode_sparse(sae, sae_in, gain, self.training)) is not None:
            return sparse, None
        latents, hidden_pre = sae.encode_with_hidden_pre(sae_in)
        if not self.training and hasattr(sae, "topk_threshold") and sae.topk_threshold > 0:
            latents = hidden_pre * (hidden_pre > sae.topk_threshold)
        return latents, hidden_pre

    def _decode(self, latents: Tensor | SparseLatents) -> Tensor:
        if not isinstance(latents, SparseLatents):
            if self.rescales_by_norm:  # SAELens divides by a norm of 0 as well
                latents = latents / one_for_zero(self.decoder_norms())
                return latents @ self.sae.W_dec + self.sae.b_dec
            return self.sae.decode(latents).to(self.sae.W_dec.dtype)
        values, _, pairs = as_active(latents)
        return self._decode_pairs(values, pairs, self.sae.W_dec) + self.sae.b_dec

    def _decode_pairs(self, values: Tensor, pairs: Pairs, weight: Tensor) -> Tensor:
        if self.rescales_by_norm:
            values = values / gather_scalars(one_for_zero(weight.norm(dim=-1)), pairs)
        return decode_pairs(values, pairs, weight)

    def _own_terms(self, output: ForwardOutput) -> dict[str, Tensor]:
        return sparsity_terms(self.sae, output)

    @torch.no_grad()
    def _update_batchtopk_threshold(self, latents: Tensor | SparseLatents) -> None:
        """Follow the smallest active latent of the global batch by an exponential average."""
        values = latents.values if isinstance(latents, SparseLatents) else latents
        values = values.detach().flatten()
        # infinite where nothing is active, so that other processes' minimum counts
        values = values if len(values) else values.new_zeros(1)
        positive = torch.where(values > 0, values, torch.inf).min().double()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(positive, op=torch.distributed.ReduceOp.MIN)
        threshold, rate = self.sae.topk_threshold, self.sae.cfg.topk_threshold_lr
        moved = (1 - rate) * threshold + rate * positive
        threshold.copy_(torch.where(positive.isfinite(), moved, threshold))

    # private to torch, and the one place that every move of a module passes through
    def _apply(self, fn: Any, recurse: bool = True) -> "SAEModel":
        super()._apply(fn, recurse)
        self._sync_placement()
        return self

    def _sync_placement(self) -> None:
        """Tell SAELens where its weights are: Lightning moves them past `SAE.to`."""
        sae = self.sae
        sae.device, sae.dtype = sae.W_dec.device, sae.W_dec.dtype
        sae.cfg.device, sae.cfg.dtype = str(sae.device), str(sae.dtype).removeprefix("torch.")


def _unchanged(tensor: Tensor, *_: Any) -> Tensor:
    return tensor
