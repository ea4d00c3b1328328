"""SAEs that are analysed and not trained: SAELens' own modules behind the interface of `SAEModel`.

A temporal SAE takes off a point what its context predicts of it, and a skip transcoder adds a map
of its input to what it decodes. Both travel beside the latents as input normalization does, so
that latents can still be shifted and decoded in any order.
"""

from typing import Any

from torch import Tensor

from saerepgeo.sae.model import Encoded, SAEModel
from saerepgeo.sae.normalization import CONSTANT, InputNormalization
from saerepgeo.types import Bool, Float, SparseLatents, to_dense


class InferenceOnlySAE(SAEModel):
    """What the SAEs have in common that have no training form here; see the subclasses.

    `sae` is a SAELens `SAE` of inference form; only evaluation mode computes anything. `decode`
    needs `normalization`: it holds the part of the reconstruction that is not in the latents.
    """

    is_trainable = False

    def __init__(self, sae: Any, input_scale: float = 1.0) -> None:
        super().__init__(sae, input_scale)
        self.eval().requires_grad_(False)


class TemporalSAE(InferenceOnlySAE):
    """x̂ = scale·(Σ_i z_i·W_dec,i + p + b) + shift, p what attention to earlier positions predicts.

    z = TopK or ReLU of λ·(x − p − b)·W_enc. A point has latents only within its context.
    Source: SAELens' `TemporalSAE`, after arXiv 2511.01836.
    """

    reads_context = True

    def __init__(self, sae: Any, input_scale: float = 1.0) -> None:
        cfg = sae.cfg
        if cfg.normalize_activations == "constant_scalar_rescale":
            input_scale = cfg.activation_normalization_factor
        super().__init__(sae, input_scale)

    def encode(self, residuals: Float[Tensor, "point d_model"]) -> Encoded:
        """Refuse points without context: raises ValueError always."""
        raise ValueError(
            "a temporal SAE encodes a point within its context, got points alone; pass whole "
            "prompts to `encode_prompts`"
        )

    def encode_prompts(
        self,
        residuals: Float[Tensor, "prompt position d_model"],
        chosen: Bool[Tensor, "prompt position"],
    ) -> Encoded:
        """Return the latents of the chosen positions, each encoded after all that precede it.

        SAEs whose metadata say that they never saw BOS do not see position 0, unless it is chosen.
        """
        if self.metadata.get("prepend_bos") is False and not bool(chosen[:, 0].any()):
            residuals, chosen = residuals[:, 1:], chosen[:, 1:]
        points, normalization = self._normalize(residuals.flatten(0, 1))
        novel, predicted = self.sae.encode_with_predictions(points.view(residuals.shape))
        rows = chosen.flatten()
        scale = normalization.scale[rows]
        shift = normalization.shift[rows] + (predicted[chosen] @ self.sae.W_dec) * scale
        return Encoded(novel[chosen], InputNormalization(shift, scale))

    def _decode(self, latents: Tensor | SparseLatents) -> Tensor:
        sae = self.sae
        has_bias = not sae.cfg.tied_weights or sae.cfg.apply_b_dec_to_input
        recons = to_dense(latents) @ sae.W_dec  # SAELens' decode warns at every call
        return recons + sae.b_dec if has_bias else recons


class Transcoder(InferenceOnlySAE):
    """ŷ = Σ_i z_i·W_dec,i + b_dec (+ W_skip·x): reads one hook and writes another.

    Reconstructions are of the activations at `hook_name_out` and have its width.
    """

    @property
    def hook_name_out(self) -> str:
        """The hook whose activations are reconstructed; ValueError where the metadata lack it."""
        name = self.metadata.get("hook_name_out")
        if not name:
            raise ValueError(
                f"the metadata of a {self.architecture} must name the hook that it reconstructs "
                "(`hook_name_out`), got none; add it to cfg.json"
            )
        return str(name)

    def encode(self, residuals: Float[Tensor, "point d_model"]) -> Encoded:
        """Return the latents of activations at the hook that is read, and what `decode` adds."""
        sae_in, _ = self._normalize(residuals)
        shift = zeros = sae_in.new_zeros(len(sae_in), 1)
        if hasattr(self.sae, "W_skip"):
            shift = residuals.to(sae_in.dtype) @ self.sae.W_skip.T
        # input normalization is not undone at the other hook, but for a folded constant
        scale = zeros + (1 / self.input_scale if self.normalization in CONSTANT else 1)
        return Encoded(self.sae.encode(sae_in), InputNormalization(shift, scale))


INFERENCE_ONLY: dict[str, type[InferenceOnlySAE]] = {
    "temporal": TemporalSAE,
    "transcoder": Transcoder,
    "skip_transcoder": Transcoder,
    "jumprelu_transcoder": Transcoder,
    "jumprelu_skip_transcoder": Transcoder,
}
"""By SAELens' name of the architecture."""
