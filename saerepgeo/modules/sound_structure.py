"""Case 2 asked so that the answer means something: every figure with n, interval and null."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.geometry.alignment import procrustes_disparity
from saerepgeo.geometry.clusters import cluster, match_clusters
from saerepgeo.geometry.nulls import Alternative, permutation_test, subsample_interval
from saerepgeo.modules.concept_cloud import ConceptCloud
from saerepgeo.modules.structure_statistics import LABELLED, item_means, label_free, rotated
from saerepgeo.seeds import generator_for
from saerepgeo.types import Estimate, Float

__all__ = [
    "ALTERNATIVES",
    "Figure",
    "SoundSettings",
    "cloud_figures",
    "pair_figures",
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
}
"""By figure: what speaks against the null. The first four: against one Gaussian cloud of the same
covariance; the next three: against items dealt out to prompts at random; the last two: against a
random pairing of the centroids."""


COUNTS = ("Clusters", "Betti0")


class SoundSettings(NamedTuple):
    """How much work goes into intervals and nulls."""

    min_cluster_size: int = 10
    n_neighbours: int = 10
    n_permutations: int = 499
    n_nulls: int = 39
    """Draws of the nulls that are slow: Gaussian clouds, and the dimension within items."""
    n_subsamples: int = 30
    fraction: float = 0.8
    """Share of the prompts in a subsample."""
    seed: int = 0


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


def cloud_figures(
    points: Float[Tensor, "point dim"],
    cloud: ConceptCloud,
    purpose: str,
    settings: SoundSettings,
) -> dict[str, Figure]:
    """Return the figures of one space, in its original coordinates.

    `Clusters`: HDBSCAN's, over all points. `Betti0`: components at `connection_radius`. `AGD`:
    average geodesic distance. `Global Dim`: TwoNN of all points. `Avg Dim`: TwoNN of the points
    that have seen an item, from neighbours of the same item, ratios pooled over items. Of the
    points at the items' mentions alone, whose centroids the template around the item moves least:
    `MST Weight` of the item centroids, and `Relative AEDP`, their distance in units of the scatter
    within.

    Intervals come from subsamples of whole prompts without replacement: 95 % by
    `subsample_interval`; for the counts `Clusters` and `Betti0`, which no rate of convergence fits,
    the 95 % range of the subsamples with the value itself. Nulls: see `ALTERNATIVES`.
    """
    x = rotated(points)
    spread = torch.linalg.svdvals(x) / max(len(x) - 1, 1) ** 0.5
    figures = {}
    for name, statistic in label_free(
        len(x), settings.min_cluster_size, settings.n_neighbours
    ).items():
        figures[name] = _free_figure(name, statistic, x, spread, cloud, purpose, settings)
    for name, by_label in LABELLED.items():
        figures[name] = _labelled_figure(name, by_label, x, cloud, purpose, settings)
    return figures


def pair_figures(
    resid: Float[Tensor, "point d_a"],
    latents: Float[Tensor, "point d_b"],
    cloud: ConceptCloud,
    purpose: str,
    settings: SoundSettings,
) -> dict[str, Figure]:
    """Return the Procrustes disparity between the two spaces' arrangements of centroids.

    `Procrustes Disparity`: of the items, paired by name. `Matched Procrustes Disparity`: of the
    HDBSCAN clusters, paired by the points they share (Hungarian); `Unmatched Mass`: the share of
    clustered points that no pair holds.
    """
    x, y = rotated(resid), rotated(latents)

    item_labels = torch.where(cloud.is_mention, cloud.labels, -1)

    def by_item(rows: Tensor) -> Estimate:
        labels = item_labels[rows]
        return procrustes_disparity(item_means(x[rows], labels), item_means(y[rows], labels))

    everything = torch.arange(len(x))
    items = (item_means(x, item_labels), item_means(y, item_labels))
    figures = {
        "Procrustes Disparity": _paired(
            by_item(everything), by_item, items, cloud, purpose, settings
        )
    }
    found = [cluster(points, settings.min_cluster_size) for points in (x, y)]
    matching = match_clusters(*found)
    centres = tuple(
        torch.stack([points[labels == int(label)].mean(0) for label in names])
        if len(names)
        else points[:0]
        for points, labels, names in zip((x, y), found, matching.pairs.T, strict=True)
    )
    matched = procrustes_disparity(*centres)
    name = "Matched Procrustes Disparity"
    figures[name] = _paired(matched, None, centres, cloud, purpose + "/matched", settings)
    mass = matching.unmatched_mass
    nan = float("nan")
    figures["Unmatched Mass"] = Figure(float(mass), mass.n_used, nan, nan, nan, nan, mass.reason)
    return figures


def _free_figure(
    name: str,
    statistic: Callable[[Tensor], Estimate],
    x: Tensor,
    spread: Tensor,
    cloud: ConceptCloud,
    purpose: str,
    settings: SoundSettings,
) -> Figure:
    observed = statistic(x)
    generator = generator_for(settings.seed, f"null/{purpose}/{name}")

    def on_draw(_: Tensor, order: Tensor) -> Estimate:
        # the labels given are in order; any other order is a draw of the null
        if bool((order[1:] > order[:-1]).all()):
            return observed
        noise = torch.randn(len(x), len(spread), generator=generator, dtype=torch.float64)
        return statistic(noise * spread)

    low, high = _interval(
        lambda rows: statistic(x[rows]), cloud, f"{purpose}/{name}", settings, name in COUNTS
    )
    test = permutation_test(
        on_draw,
        x,
        torch.arange(len(x)),
        settings.n_nulls,
        generator,
        alternative=ALTERNATIVES[name],
    )
    return _figure(observed, low, high, test.p_value, test.null_mean)


def _labelled_figure(
    name: str,
    statistic: Callable[[Tensor, Tensor], Estimate],
    x: Tensor,
    cloud: ConceptCloud,
    purpose: str,
    settings: SoundSettings,
) -> Figure:
    kept = cloud.labels >= 0 if name == "Avg Dim" else cloud.is_mention
    x, prompts, labels = x[kept], cloud.prompts[kept], cloud.labels[kept]
    names, first = prompts.unique(return_inverse=True)
    items = torch.stack([labels[first == i][0] for i in range(len(names))])
    n = settings.n_nulls if name == "Avg Dim" else settings.n_permutations
    test = permutation_test(
        lambda _, dealt: statistic(x, dealt[first]),
        names.double()[:, None],
        items,
        n,
        generator_for(settings.seed, f"null/{purpose}/{name}"),
        alternative=ALTERNATIVES[name],
    )
    named = cloud._replace(prompts=prompts)
    low, high = _interval(
        lambda rows: statistic(x[rows], labels[rows]), named, f"{purpose}/{name}", settings
    )
    return _figure(statistic(x, labels), low, high, test.p_value, test.null_mean)


def _paired(
    observed: Estimate,
    statistic: Callable[[Tensor], Estimate] | None,
    centres: tuple[Tensor, ...],
    cloud: ConceptCloud,
    purpose: str,
    settings: SoundSettings,
) -> Figure:
    a, b = centres
    nan = float("nan")
    low, high = nan, nan
    if statistic is not None:
        low, high = _interval(statistic, cloud, f"{purpose}/procrustes", settings)
    if observed.reason is not None:
        return _figure(observed, low, high, nan, nan)
    test = permutation_test(
        lambda points, order: procrustes_disparity(points, b[order]),
        a,
        torch.arange(len(a)),
        settings.n_permutations,
        generator_for(settings.seed, f"null/{purpose}/procrustes"),
        alternative="less",
    )
    return _figure(observed, low, high, test.p_value, test.null_mean)


def _interval(
    statistic: Callable[[Tensor], Estimate],
    cloud: ConceptCloud,
    purpose: str,
    settings: SoundSettings,
    is_count: bool = False,
) -> tuple[float, float]:
    """Return the interval from subsamples of prompts, whose positions stay together."""
    values: list[float] = []

    def on_prompts(chosen: Tensor) -> Estimate:
        rows = torch.isin(cloud.prompts, chosen[:, 0].long()).nonzero()[:, 0]
        found = statistic(rows)
        values.append(float(found))
        return found

    interval = subsample_interval(
        on_prompts,
        cloud.prompts.unique().double()[:, None],
        fraction=settings.fraction,
        n=settings.n_subsamples,
        generator=generator_for(settings.seed, f"subsamples/{purpose}"),
    )
    if not is_count or interval.n_draws == 0:
        return interval.low, interval.high
    draws = torch.tensor(values, dtype=torch.float64)
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = draws[1:].quantile(tails).tolist()
    return min(low, values[0]), max(high, values[0])


def _figure(observed: Estimate, low: float, high: float, p: float, null: float) -> Figure:
    return Figure(float(observed), observed.n_used, low, high, p, null, observed.reason)
