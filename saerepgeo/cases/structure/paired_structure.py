"""Case 2, sound: whether two spaces arrange items and clusters alike."""

from collections.abc import Callable

import torch
from torch import Tensor

from saerepgeo.cases.concept_points import ConceptCloud
from saerepgeo.cases.structure.sound_structure import (
    ALTERNATIVES,
    Figure,
    SoundSettings,
    SpaceFigures,
    figure_of,
    share_of_prompts,
)
from saerepgeo.cases.structure.space import Found
from saerepgeo.geometry.alignment import procrustes_disparity
from saerepgeo.geometry.clusters import match_clusters
from saerepgeo.geometry.nulls import PermutationTest, null_test, permutation_test
from saerepgeo.types import Estimate, generator_for

__all__ = ["pair_figures"]

LEAST_PAIRS = 3
"""Two points have the same shape as any two others."""


def pair_figures(
    resid: SpaceFigures,
    latents: SpaceFigures,
    cloud: ConceptCloud,
    purpose: str,
    settings: SoundSettings,
    report: Callable[[], None] = lambda: None,
) -> dict[str, Figure]:
    """Return how the arrangements of two spaces differ, from the same subsamples of both.

    `Procrustes Disparity`: of the item centroids, paired by name; null: a random pairing. `Matched
    Procrustes Disparity`: of the HDBSCAN clusters, paired by the points they share (Hungarian);
    null: a random pairing; undefined for fewer than three pairs. `Unmatched Mass`: the share of
    clustered points that no pair holds; null: the second space's clusters dealt to the points
    prompt by prompt, the prompts in random order, which keeps neighbors in a prompt together.

    Intervals: as `cloud_figures`, cut off at the ends of what is possible (0, and 1).
    """
    fraction = share_of_prompts(cloud, settings)
    pairs = list(zip(resid.draws, latents.draws, strict=True))
    whole = resid.found, latents.found
    figures = {}
    for name, statistic in STATISTICS.items():
        observed = statistic(*whole)
        test = None
        if observed.reason is None:
            test = _test(name, whole, cloud, f"{purpose}/{name}", settings, report)
        found = figure_of(name, observed, [statistic(*pair) for pair in pairs], fraction, test)
        figures[name] = found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))
    return figures


def _by_item(a: Found, b: Found) -> Estimate:
    return procrustes_disparity(a.item_centers, b.item_centers)


def _matched_centers(a: Found, b: Found) -> tuple[Tensor, Tensor]:
    pairs = match_clusters(a.clusters, b.clusters).pairs
    return a.cluster_centers[pairs[:, 0]], b.cluster_centers[pairs[:, 1]]


def _by_cluster(a: Found, b: Found) -> Estimate:
    centers = _matched_centers(a, b)
    if len(centers[0]) < LEAST_PAIRS:
        reason = f"{len(centers[0])} pairs of clusters, {LEAST_PAIRS} needed"
        return Estimate.undefined(reason, len(centers[0]))
    return procrustes_disparity(*centers)


def _unmatched(a: Found, b: Found) -> Estimate:
    return match_clusters(a.clusters, b.clusters).unmatched_mass


STATISTICS: dict[str, Callable[[Found, Found], Estimate]] = {
    "Procrustes Disparity": _by_item,
    "Matched Procrustes Disparity": _by_cluster,
    "Unmatched Mass": _unmatched,
}


def _test(
    name: str,
    whole: tuple[Found, Found],
    cloud: ConceptCloud,
    purpose: str,
    settings: SoundSettings,
    report: Callable[[], None],
) -> PermutationTest:
    generator = generator_for(settings.seed, f"null/{purpose}")
    if name == "Unmatched Mass":
        a, b = (found.clusters for found in whole)
        draws = []
        for _ in range(settings.n_permutations):
            dealt = b[_prompts_in_random_order(cloud.prompts, generator)]
            draws.append(float(match_clusters(a, dealt).unmatched_mass))
            report()
        observed = float(match_clusters(a, b).unmatched_mass)
        return null_test(observed, draws, ALTERNATIVES[name])
    items = name == "Procrustes Disparity"
    x, y = (f.item_centers for f in whole) if items else _matched_centers(*whole)

    def disparity(points: Tensor, order: Tensor) -> Estimate:
        report()
        return procrustes_disparity(points, y[order])

    return permutation_test(
        disparity,
        x,
        torch.arange(len(x)),
        settings.n_permutations,
        generator,
        alternative=ALTERNATIVES[name],
    )


def _prompts_in_random_order(prompts: Tensor, generator: torch.Generator) -> Tensor:
    """Return the rows with the prompts permuted and the points of a prompt in their order."""
    names, first = prompts.unique(return_inverse=True)
    rank = torch.randperm(len(names), generator=generator)[first]
    return rank.argsort(stable=True)
