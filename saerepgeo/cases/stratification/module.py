"""Case 1: which strata of fixed rank the latents visit as noise is added to the residuals."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import Metric

from saerepgeo.bounds import Count, NotNegative, PositiveInt, check_settings
from saerepgeo.cases.analysis import AnalysisModule, ConceptPoints
from saerepgeo.cases.spaces import RESIDUALS, Space, all_spaces
from saerepgeo.geometry.clouds.entries import full_precision
from saerepgeo.metrics import TensorRanks
from saerepgeo.metrics.cloud_metric import evaluate
from saerepgeo.metrics.wrappers import Figure
from saerepgeo.metrics.wrappers.wrapped import in_threads, named_metrics
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import AnalysisBatch, ConceptActivations, Float, generator_for

NOISE_LEVELS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

NoiseScale = Literal["absolute", "relative"]


class Condition(NamedTuple):
    """One draw of noise."""

    noise_scale: NoiseScale
    noise: float
    draw: int

    def __str__(self) -> str:
        return ":".join(map(str, self))


class StratificationModule(AnalysisModule):
    """Add noise to residuals, encode, and take the ranks of the tensor [prompt, position, latent].

    x' = x + level · unit · N(0, 1) at every real position; unit 1 (`absolute`) or the root mean
    square entry of the concept's residuals (`relative`). The spaces are x', its effective latents
    and those of random dictionaries, the same noise in all of them. Masked positions are zeros of
    the tensor. Matrices of one rank r form a stratum; the ranks visited over the noise levels are
    the strata.

    Args:
        sae: the SAE to look at, or several.
        noise_levels: levels of noise.
        noise_scales: units of the levels.
        n_draws: draws of noise a level; level 0 has one.
        metrics: of every space under every draw; None: `TensorRanks()`.
        n_random: random dictionaries.
        name: the model in tables; by default its language model and layer.
        seed: of noise and random dictionaries.
    """

    def __init__(
        self,
        sae: SAESource | list[SAESource],
        noise_levels: Sequence[NotNegative] = NOISE_LEVELS,
        noise_scales: Sequence[NoiseScale] = ("absolute", "relative"),
        n_draws: PositiveInt = 3,
        metrics: list[Metric] | None = None,
        n_random: Count = 1,
        name: str | None = None,
        seed: Count = 0,
    ) -> None:
        check_settings(StratificationModule, locals())
        super().__init__(sae, name, n_random, seed)
        if not noise_levels or not noise_scales:
            raise ValueError("`noise_levels` and `noise_scales` must name at least one each")
        self.noise_levels = tuple(noise_levels)
        self.metrics = list(named_metrics([TensorRanks()] if metrics is None else metrics).values())
        self.spaces = all_spaces(len(self.sources), n_random)
        self._draws = {
            f"{scale} noise {level:g}": [
                Condition(scale, level, draw) for draw in range(n_draws if level > 0 else 1)
            ]
            for scale in noise_scales
            for level in self.noise_levels
        }
        self.parts = list(self._draws)

    @torch.no_grad()
    @full_precision()
    def test_step(self, batch: AnalysisBatch, batch_idx: int) -> dict[str, Any]:
        """Return the rows of all spaces of one concept at one level of noise."""
        concept = batch.activations
        if not bool(concept.is_real.any()):
            raise ValueError(f"concept {concept.concept}: no position is real; check its prompts")
        for space in self.spaces:  # before the threads read them
            self.clean(concept, space)
        work = [(draw, space) for draw in self._draws[batch.part] for space in self.spaces]
        found = in_threads(lambda each: self._under(concept, *each), work)
        spectra: dict[str, list[Tensor]] = defaultdict(list)
        for (condition, space), (_, values) in zip(work, found, strict=True):
            name = f"{space.name} {self.sae_names[space.sae]}" if space.sae else space.name
            for mode, spectrum in values.items():
                key = f"{name}/{mode}/{condition.noise_scale}/{condition.noise}"
                spectra[key].append(spectrum)
        return {
            "rows": [row for rows, _ in found for row in rows],
            "spectra": {key: pad_sequence(values, True) for key, values in spectra.items()},
        }

    def clean(self, concept: ConceptActivations, space: Space) -> Float[Tensor, "point dim"]:
        """Return the real points of a space without noise."""
        return self.kept(space, self.points, space, concept.residuals, concept.is_real)

    def _under(
        self, concept: ConceptActivations, condition: Condition, space: Space
    ) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """Return rows and spectra of a space under one draw of noise."""
        points, (scale, level, draw) = self.clean(concept, space), condition
        if level > 0:
            prompts, clean = concept.residuals.clone(), self.clean(concept, RESIDUALS)
            purpose, index = f"noise/{scale}/{concept.concept}", self.noise_levels.index(level)
            generator = generator_for(self.seed, purpose, index, draw)
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            prompts[concept.is_real] = clean + level * noise_unit(clean, scale) * noise
            points = self.points(space, prompts, concept.is_real)
        cloud = ConceptPoints.of(concept, concept.is_real).cloud(points, name=concept.concept)
        figures = {n: Figure(figure) for n, figure in evaluate(self.metrics, cloud).items()}
        rows = self.rows(concept.concept, space, "sound", figures, str(condition))
        has_spectra = any(isinstance(metric, TensorRanks) for metric in self.metrics)
        return rows, TensorRanks.spectra(cloud).values if has_spectra else {}


def noise_unit(residuals: Float[Tensor, "point d_model"], scale: NoiseScale) -> float:
    """Return what noise level 1 is: 1, or √(mean of the squared entries) of the residuals.

    >>> noise_unit(torch.tensor([[3.0, -3.0]]), "relative")
    3.0
    """
    return 1.0 if scale == "absolute" else float(residuals.double().square().mean().sqrt())
