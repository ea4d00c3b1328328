"""What SAEBench's `core` evaluation reports of an SAE, under its names, beside our own figures."""

from typing import Any

from torch import Tensor

import saerepgeo.metrics as metrics
from saerepgeo.cases.separability.validation import ReconstructionFigures
from saerepgeo.geometry import mean_nearest_cosine
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import Estimate, Float, SAEOutput


class CoreFigures(ReconstructionFigures):
    """Accumulate points and what an SAE makes of them; `mean` is the mean of all points.

    Latents are added up as effective latents: SAEBench scales the decoder's rows to length 1 first.
    """

    def __init__(self, sae: SAEModel, mean: Float[Tensor, "d_model"]) -> None:
        super().__init__(sae.d_sae)
        self.add_metrics(
            {
                "explained_variance_legacy": metrics.ExplainedVarianceLegacy(mean),
                "l2_norms": metrics.L2Norms(),
                "l2_ratio": metrics.L2Ratio(),
                "l1": metrics.L1(),
                "frequencies": metrics.ActivationFrequencies(sae.d_sae),
            }
        )
        self._effective = sae.effective_latents

    def add(self, residuals: Tensor, out: SAEOutput) -> None:
        effective = self._effective(out.latents)
        pairs: Any = {"recons": out.recons.float(), "residuals": residuals}
        self.update(**pairs, latents=out.latents, effective_latents=effective)

    def estimates(self) -> dict[str, Estimate]:
        """Return the figures so far by name, those of a metric that gives several by theirs."""
        found: dict[str, Estimate] = {}
        for name, metric in self.items():
            own: dict[str, Estimate] = metric.estimates()  # type: ignore[operator]
            found |= own if len(own) > 1 else dict.fromkeys([name], *own.values())
        return found


def weight_figures(sae: SAEModel) -> dict[str, Estimate]:
    """Return how near to its nearest other direction an encoder, and a decoder, direction lies."""
    weights: Any = sae.sae
    undefined = Estimate.undefined(f"a {sae.architecture} SAE has no encoder weights")
    has_encoder = hasattr(weights, "W_enc")
    encoder = mean_nearest_cosine(weights.W_enc.detach().T) if has_encoder else undefined
    decoder = mean_nearest_cosine(weights.W_dec.detach())
    return {"average_max_encoder_cosine_sim": encoder, "average_max_decoder_cosine_sim": decoder}
