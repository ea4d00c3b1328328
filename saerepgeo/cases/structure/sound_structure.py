"""Case 2 asked so that the answer means something: every figure with n, interval and null."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.cases.concept_points import ConceptCloud
from saerepgeo.cases.structure.draws import in_parallel
from saerepgeo.cases.structure.space import LARGE, N_SOURCES, Found, Part, Space, figures_of
from saerepgeo.cases.structure.structure_nulls import (
    ALTERNATIVES,
    COUNTS,
    SoundSettings,
    free_tests,
    labeled_tests,
    random_sources,
)
from saerepgeo.geometry.nulls import PermutationTest, interval_of_draws
from saerepgeo.types import Estimate, Float, Int, SparseLatents, generator_for

__all__ = [
    "ALTERNATIVES",
    "COUNTS",
    "Figure",
    "SoundSettings",
    "SpaceFigures",
    "cloud_figures",
    "figure_of",
    "share_of_prompts",
    "subsamples",
]


class Figure(NamedTuple):
    """A number with what it takes to believe it."""

    value: float
    n: int
    low: float
    high: float
    p: float
    null: float
    """Mean under the null."""
    reason: str | None = None
    tested: float | None = None
    """The figure of the points that the null imitates, where these are not all."""


class SpaceFigures(NamedTuple):
    """The figures of one space, and what pairs of spaces are compared by."""

    figures: dict[str, Figure]
    space: Space
    found: Found
    draws: list[Found]
    """Of the subsamples."""


def subsamples(
    cloud: ConceptCloud, concept: str, settings: SoundSettings
) -> list[Int[Tensor, "_"]]:
    """Return rows of subsamples of whole prompts: the same ones for every space of a concept."""
    prompts = cloud.prompts.unique()
    n_kept = int(share_of_prompts(cloud, settings) * len(prompts))

    def rows(draw: int) -> Tensor:
        generator = generator_for(settings.seed, f"subsamples/{concept}", draw)
        chosen = prompts[torch.randperm(len(prompts), generator=generator)[:n_kept]]
        return torch.isin(cloud.prompts, chosen).nonzero()[:, 0]

    return [rows(draw) for draw in range(settings.n_subsamples)]


def cloud_figures(
    points: Float[Tensor, "point dim"] | SparseLatents,
    cloud: ConceptCloud,
    purpose: str,
    rows: list[Int[Tensor, "_"]],
    settings: SoundSettings,
    report: Callable[[], None] = lambda: None,
) -> SpaceFigures:
    """Return the figures of one space, in its original coordinates.

    `Clusters`: HDBSCAN's, over all points. `Betti0`: components at `connection_radius`. `AGD`:
    average geodesic distance. `Global Dim`: TwoNN of all points. `Avg Dim`: TwoNN of the points
    that have seen an item, from neighbors of the same item, ratios pooled over items. Of the
    points at the items' mentions alone, whose centroids the template around the item moves least:
    `MST Weight` of the item centroids, and `Relative AEDP`, their distance in units of the scatter
    within.

    Intervals come from subsamples of whole prompts without replacement: 95 % by
    `interval_of_draws`, for what as many prompts give on average; for the counts `Clusters` and
    `Betti0`, which no rate of convergence fits, the 95 % range of the subsamples with the value
    itself. In draws the AGD is that of paths from some of the points. Nulls: see `ALTERNATIVES`.

    Coverage by simulation (60 concepts of 40 prompts and 240 points, 50 subsamples each; the
    dimension drifts by 7 % between a subsample and the whole): AGD 100 %, Global Dim 100 %, Avg Dim
    98 %, MST Weight 95 %, Relative AEDP 92 % (± 3), and every interval holds its own value. The
    interval of the dimension is wider than it need be: `tests/test_structure_intervals.py`.

    Values are of all points, however many (the AGD of more than `LARGE`: of 512 sources). Of more
    than `LARGE` points, nulls stand beside the figures of one subsample, `tested`, and counts have
    no interval, for subsamples are much smaller than the cloud.

    Args:
        points: a row for each point of `cloud`.
        cloud: their prompts and items.
        purpose: what random draws are for; another purpose, other draws.
        rows: of the subsamples.
        settings: sizes of neighborhoods, numbers of draws.
        report: called after each draw.
    """
    space = Space(points, cloud)
    all_rows = torch.arange(space.n_points)
    sizes = settings.min_cluster_size, settings.n_neighbors
    paths = random_sources(space.n_points, N_SOURCES, purpose, settings) if space.is_large else None
    found = _found(space, all_rows, space.whole(), sizes, paths)
    fraction = share_of_prompts(cloud, settings)

    def of_subsample(draw: int) -> Found:
        # clusters and neighborhoods shrink with the sample, unless nearly nothing were left
        smaller = [max(2, round(s * len(rows[draw]) / space.n_points)) for s in sizes]
        scaled = sizes if space.is_large else (smaller[0], smaller[1])
        paths = random_sources(
            len(rows[draw]), 2 * settings.n_sources, f"{purpose}/{draw}", settings
        )
        return _found(space, rows[draw], space.part(rows[draw]), scaled, paths)

    draws = in_parallel(of_subsample, range(len(rows)), report)
    at = rows[0] if space.is_large else all_rows
    part = space.part(at) if space.is_large else space.whole()
    tested = draws[0].figures if space.is_large else found.figures
    tests = free_tests(part, space.coordinates(at), tested, purpose, settings, report)
    about = ConceptCloud(at, cloud.prompts[at], cloud.labels[at], cloud.is_mention[at], 0)
    tests |= labeled_tests(part, about, tested, purpose, settings, report)
    figures = {}
    for name, observed in found.figures.items():
        figure = figure_of(
            name, observed, [d.figures[name] for d in draws], fraction, tests[name], space.is_large
        )
        figures[name] = figure._replace(tested=float(tested[name]) if space.is_large else None)
    return SpaceFigures(figures, space, found, draws)


def figure_of(
    name: str,
    observed: Estimate,
    draws: list[Estimate],
    fraction: float,
    test: PermutationTest | None,
    is_large: bool = False,
) -> Figure:
    """Return a figure with its interval from subsamples, and its null."""
    value = float(observed)
    values = [float(draw) for draw in draws]
    if name not in COUNTS:
        low, high, *_ = interval_of_draws(value, values, fraction)
    elif is_large or not values:
        low = high = float("nan")
    else:
        tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
        low, high = torch.tensor(values, dtype=torch.float64).quantile(tails).tolist()
        low, high = min(low, value), max(high, value)
    p, null = (test.p_value, test.null_mean) if test else (float("nan"), float("nan"))
    return Figure(value, observed.n_used, low, high, p, null, observed.reason)


def share_of_prompts(cloud: ConceptCloud, settings: SoundSettings) -> float:
    """Return which share of the prompts a subsample holds."""
    n_points = len(cloud.prompts)
    if n_points <= LARGE:
        return settings.fraction
    return min(settings.fraction, settings.max_points / n_points)


def _found(
    space: Space, rows: Tensor, part: Part, sizes: tuple[int, int], sources: Tensor | None
) -> Found:
    figures, clusters, item_centers = figures_of(part, *sizes, sources)
    return Found(figures, clusters, space.centers(rows, clusters), item_centers)
