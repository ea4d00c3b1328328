"""SAEs that are analysed and not trained: SAELens' own modules behind the interface of `SAEModel`.

What a temporal SAE takes off a point (its context's prediction), and the map of its input that a
skip transcoder adds, travel beside the latents as input normalization does.
"""

from typing import Any

from torch import Tensor

from saerepgeo.sae.model import Encoded, PromptResiduals, SAEModel
from saerepgeo.sae.normalization import CONSTANT, InputNormalization
from saerepgeo.sae.sparse.active_pairs import Latents, Points
from saerepgeo.types import Bool, to_dense


class InferenceOnlySAE(SAEModel):
    """A SAELens `SAE` of inference form, in evaluation mode alone.

    `decode` needs `normalization`: it holds the part of the reconstruction that is not in latents.
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
        if sae.cfg.normalize_activations == "constant_scalar_rescale":
            input_scale = sae.cfg.activation_normalization_factor
        super().__init__(sae, input_scale)

    def encode(self, residuals: Points) -> Encoded:
        """Refuse points without context: raises ValueError always."""
        raise ValueError(
            "a temporal SAE encodes a point within its context, got points alone; pass whole "
            "prompts to `encode_prompts`"
        )

    def encode_prompts(
        self, residuals: PromptResiduals, chosen: Bool[Tensor, "prompt position"]
    ) -> Encoded:
        """Return the latents of the chosen positions, each encoded after all that precede it.

        SAEs whose metadata say that they never saw BOS do not see position 0, unless it is chosen.
        """
        if self.metadata.get("prepend_bos") is False and not bool(chosen[:, 0].any()):
            residuals, chosen = residuals[:, 1:], chosen[:, 1:]
        points, normalization = self._normalize(residuals.flatten(0, 1))
        novel, predicted = self.sae.encode_with_predictions(points.view(residuals.shape))
        shift, scale = (taken[chosen.flatten()] for taken in normalization)
        shift = shift + (predicted[chosen] @ self.sae.W_dec) * scale
        return Encoded(novel[chosen], InputNormalization(shift, scale))

    def _decode(self, latents: Latents) -> Tensor:
        recons = to_dense(latents) @ self.sae.W_dec  # SAELens' decode warns at every call
        has_bias = not self.sae.cfg.tied_weights or self.sae.cfg.apply_b_dec_to_input
        return recons + self.sae.b_dec if has_bias else recons


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

    def encode(self, residuals: Points) -> Encoded:
        """Return the latents of activations at the hook that is read, and what `decode` adds."""
        sae_in, _ = self._normalize(residuals)
        shift = zeros = sae_in.new_zeros(len(sae_in), 1)
        if hasattr(self.sae, "W_skip"):
            shift = residuals.to(sae_in.dtype) @ self.sae.W_skip.T
        # input normalization is not undone at the other hook, but for a folded constant
        scale = zeros + (1 / self.input_scale if self.normalization in CONSTANT else 1)
        return Encoded(self.sae.encode(sae_in), InputNormalization(shift, scale))


_TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
INFERENCE_ONLY: dict[str, type[InferenceOnlySAE]] = {
    "temporal": TemporalSAE,
    **dict.fromkeys(_TRANSCODERS, Transcoder),
}
"""By SAELens' name of the architecture."""
