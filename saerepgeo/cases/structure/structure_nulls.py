"""The nulls of the sound protocol: Gaussian clouds, and items dealt out to prompts at random."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.cases.concept_points import ConceptCloud
from saerepgeo.cases.structure.draws import in_parallel
from saerepgeo.cases.structure.space import Part
from saerepgeo.cases.structure.structure_statistics import (
    BY_CENTROIDS,
    free_figures,
    pooled_dimension,
)
from saerepgeo.geometry.clouds.matrix import MatrixCloud
from saerepgeo.geometry.nulls import Alternative, PermutationTest, null_test
from saerepgeo.types import Estimate, generator_for

__all__ = [
    "ALTERNATIVES",
    "COUNTS",
    "SoundSettings",
    "free_tests",
    "labeled_tests",
    "random_sources",
]

ALTERNATIVES: dict[str, Alternative] = {
    "Clusters": "greater",
    "Betti0": "greater",
    "AGD": "two-sided",
    "Global Dim": "two-sided",
    "Avg Dim": "two-sided",
    "MST Weight": "greater",
    "Relative AEDP": "greater",
    "Procrustes Disparity": "less",
    "Matched Procrustes Disparity": "less",
    "Unmatched Mass": "less",
}
"""By figure: what speaks against the null. The first four: against one Gaussian cloud of the same
covariance; the next three: against items dealt out to prompts at random; the disparities: against a
random pairing of the centroids; the last: against clusters of other prompts."""
COUNTS = ("Clusters", "Betti0")

Statistics = Callable[[Tensor], dict[str, Estimate]]


class SoundSettings(NamedTuple):
    """How much work goes into intervals and nulls."""

    min_cluster_size: int = 10
    n_neighbors: int = 10
    n_permutations: int = 499
    n_nulls: int = 199
    """Draws of the nulls that are slow: Gaussian clouds, and the dimension within items."""
    n_subsamples: int = 100
    fraction: float = 0.8
    """Share of the prompts in a subsample."""
    n_sources: int = 128
    """Points whose paths stand for all in draws of the AGD; twice as many in subsamples."""
    max_points: int = 1024
    """Of a cloud of more than `LARGE` points, intervals and nulls are taken on so many."""
    seed: int = 0


def random_sources(
    n_points: int, count: int, purpose: str, settings: SoundSettings
) -> Tensor | None:
    """Return some of the points, whose paths are to stand for all; None for all of them."""
    if count >= n_points:
        return None
    generator = generator_for(settings.seed, f"sources/{purpose}")
    return torch.randperm(n_points, generator=generator)[:count]


def free_tests(
    part: Part,
    x: Tensor,
    tested: dict[str, Estimate],
    purpose: str,
    settings: SoundSettings,
    report: Callable[[], None],
) -> dict[str, PermutationTest]:
    """Test against Gaussian clouds, all figures of a draw from one matrix of distances."""
    centered = x - x.mean(0)
    gram = centered.T @ centered if x.shape[1] <= len(x) else centered @ centered.T
    spread = (torch.linalg.eigvalsh(gram).clamp(min=0) / max(len(x) - 1, 1)).sqrt().float()
    n_points = len(x)
    n_sources = min(settings.n_sources, n_points)
    sizes = settings.min_cluster_size, settings.n_neighbors

    def draw(number: int) -> dict[str, Estimate]:
        generator = generator_for(settings.seed, f"null/{purpose}", number)
        noise = torch.randn(n_points, len(spread), generator=generator) * spread
        # any of the points are as good as random ones
        return free_figures(
            MatrixCloud.of_points(noise), *sizes, sources=torch.arange(n_sources)
        ).figures

    draws = in_parallel(draw, range(settings.n_nulls), report)
    # paths from as many points, that the value tested be exchangeable with the draws
    paths = random_sources(n_points, n_sources, f"{purpose}/tested", settings)
    tested = tested | {"AGD": free_figures(part.cloud, *sizes, paths).figures["AGD"]}
    return {
        name: null_test(float(tested[name]), [float(d[name]) for d in draws], ALTERNATIVES[name])
        for name in (*COUNTS, "AGD", "Global Dim")
    }


def labeled_tests(
    part: Part,
    about: ConceptCloud,
    tested: dict[str, Estimate],
    purpose: str,
    settings: SoundSettings,
    report: Callable[[], None],
) -> dict[str, PermutationTest]:
    """Test against items dealt out to prompts at random."""

    def within(dealt: Tensor) -> dict[str, Estimate]:
        return {"Avg Dim": pooled_dimension(part.cloud, dealt)}

    def between(dealt: Tensor) -> dict[str, Estimate]:
        at = dealt[about.is_mention]
        return {name: statistic(part.at_mentions, at) for name, statistic in BY_CENTROIDS.items()}

    def draws(statistics: Statistics, kept: Tensor, n: int, stage: str) -> list[dict]:
        deal = partial(_dealt, about, kept, f"{purpose}/{stage}", settings.seed)
        return in_parallel(lambda draw: statistics(deal(draw)), range(n), report)

    made = {
        ("Avg Dim",): draws(within, about.labels >= 0, settings.n_nulls, "within"),
        tuple(BY_CENTROIDS): draws(between, about.is_mention, settings.n_permutations, "between"),
    }
    return {
        name: null_test(float(tested[name]), [float(d[name]) for d in found], ALTERNATIVES[name])
        for names, found in made.items()
        for name in names
    }


def _dealt(about: ConceptCloud, kept: Tensor, purpose: str, seed: int, draw: int) -> Tensor:
    """Return labels with the items of the prompts permuted; −1 at points that are not `kept`."""
    names, first = about.prompts[kept].unique(return_inverse=True)
    items = torch.empty(len(names), dtype=torch.long)
    items[first] = about.labels[kept]
    order = torch.randperm(len(names), generator=generator_for(seed, f"null/{purpose}", draw))
    dealt = torch.full_like(about.labels, -1)
    dealt[kept] = items[order][first]
    return dealt
