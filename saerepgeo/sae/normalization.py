"""Input normalization of an SAE as a pure function: what was taken off travels with the latents.

SAELens keeps it on the SAE until the next decode, so that decoding anything else is wrong.
"""

from typing import NamedTuple

from torch import Tensor

from saerepgeo.sae.decoder_norms import one_for_zero
from saerepgeo.sae.sparse.active_pairs import Points
from saerepgeo.types import Float

CONSTANT = ("expected_average_only_in", "constant_scalar_rescale")
"""One factor for all points; SAELens folds the first into the weights and holds the second."""
MODES = ("none", *CONSTANT, "constant_norm_rescale", "layer_norm")
_LAYER_NORM_EPS = 1e-5


class InputNormalization(NamedTuple):
    """Per point: normalized recons × `scale` + `shift` are recons in residual units."""

    shift: Float[Tensor, "point _"]
    """One number a point, or a vector where more than a mean was taken off (`inference_only`)."""
    scale: Float[Tensor, "point 1"]

    def undo(self, recons: Points) -> Points:
        """Return reconstructions in the units of the residuals."""
        return recons * self.scale + self.shift


def normalize(
    residuals: Points, mode: str, input_scale: Float[Tensor, ""] | None = None
) -> tuple[Points, InputNormalization]:
    """Return what the SAE sees of the residuals, and how to undo it.

    none: x. expected_average_only_in, constant_scalar_rescale: x·f with f = `input_scale`.
    constant_norm_rescale: x·√d/‖x‖. layer_norm: (x − mean)/(std + 1e-5), undone with std alone, as
    SAELens does. A zero or constant point becomes zero and is reconstructed with scale 0.

    Raises ValueError on an unknown `mode`, and without the `input_scale` that it needs.

    >>> import torch
    >>> sae_in, undo = normalize(torch.tensor([[3.0, 4.0]]), "constant_norm_rescale")
    >>> undo.undo(sae_in)
    tensor([[3., 4.]])
    """
    zeros = residuals.new_zeros(residuals.shape[0], 1)
    if mode == "none":
        return residuals, InputNormalization(zeros, zeros + 1)
    if mode in CONSTANT:
        if input_scale is None:
            raise ValueError(f"`input_scale` must be given for {mode}, got None")
        return residuals * input_scale, InputNormalization(zeros, zeros + 1 / input_scale)
    if mode == "constant_norm_rescale":
        scale = residuals.norm(dim=1, keepdim=True) / residuals.shape[1] ** 0.5
        return residuals / one_for_zero(scale), InputNormalization(zeros, scale)
    if mode == "layer_norm":
        mean = residuals.mean(dim=1, keepdim=True)
        centered = residuals - mean
        std = centered.std(dim=1, keepdim=True)
        return centered / (std + _LAYER_NORM_EPS), InputNormalization(mean, std)
    raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}")
