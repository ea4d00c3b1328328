"""Whether two representations of the same points have one shape, and the same clusters."""

from typing import Any, Literal

import torch
from torch import Tensor

from saerepgeo.geometry.alignment import debiased_cka, debiased_ckas, procrustes_disparity
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.clusters import match_clusters
from saerepgeo.metrics.cloud_metric import PairMetric
from saerepgeo.types import Estimate

LEAST_PAIRS = 3
"""Two points have the same shape as any two others."""
Pairing = Literal["items", "matched_clusters", "cluster_numbers"]
NAMES: dict[str, tuple[str, str]] = {
    "items": ("procrustes", "Procrustes Disparity"),
    "matched_clusters": ("matched_procrustes", "Matched Procrustes Disparity"),
    "cluster_numbers": ("number_paired_procrustes", "Procrustes Disparity"),
}
"""Stem and title by pairing."""


class LinearCKA(PairMetric):
    """Debiased linear CKA between two representations of the same points.

    See `geometry.debiased_cka`: 1 for one shape, about 0 for independent points. Of the labeled
    points where there are any, else of all. Undefined for fewer than four points and where one side
    does not vary. Null: a random pairing of the points.

    >>> metric = LinearCKA()
    >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> metric.update(x, 3 * x.flip(1))
    >>> round(metric.compute().item(), 9)
    1.0
    """

    stem, title = "cka", "CKA"
    alternative = "greater"
    bounds = (-torch.inf, 1.0)
    higher_is_better = True

    def __init__(self, max_points: int = 5_000, **kwargs: Any) -> None:
        super().__init__(max_points, **kwargs)

    def of_pair(self, x: LabeledCloud, y: LabeledCloud) -> Estimate:
        return debiased_cka(_chosen(x), _chosen(y))

    def by_chance(
        self, x: LabeledCloud, y: LabeledCloud, n_draws: int, generator: torch.Generator
    ) -> list[Estimate]:
        first, second = _chosen(x), _chosen(y)
        orders = (torch.randperm(len(second), generator=generator) for _ in range(n_draws))
        return debiased_ckas(first, second, orders)


class ProcrustesDisparity(PairMetric):
    """Procrustes disparity between centroids in two representations of the same points.

    See `geometry.procrustes_disparity`: small by chance for few centroids, which `n_used` counts.
    Fewer than two pairs, or equal centroids in one space: undefined. Null: a random pairing.

    Args:
        pairing: `items` pairs the centroids of items by name; `matched_clusters` those of the
            HDBSCAN clusters that share the most points (Hungarian), undefined for fewer than three
            pairs; `cluster_numbers`, as the paper does, clusters of the same number, which has no
            meaning.

    >>> metric = ProcrustesDisparity()
    >>> x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    >>> metric.update(x, 3 * x.flip(1), torch.arange(30) % 5)
    >>> abs(metric.compute().item()) < 1e-9
    True
    """

    alternative = "less"
    bounds = (0.0, 1.0)
    shrinking = ("min_cluster_size",)
    higher_is_better = False

    def __init__(
        self, pairing: Pairing = "items", min_cluster_size: int = 10, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if pairing not in NAMES:
            raise ValueError(f"`pairing` must be one of {', '.join(NAMES)}, got {pairing!r}")
        self.pairing, self.min_cluster_size = pairing, min_cluster_size
        self.stem, self.title = NAMES[pairing]

    def of_pair(self, x: LabeledCloud, y: LabeledCloud) -> Estimate:
        first, second = self._centers(x, y)
        if self.pairing == "matched_clusters" and len(first) < LEAST_PAIRS:
            reason = f"{len(first)} pairs of clusters, {LEAST_PAIRS} needed"
            return Estimate.undefined(reason, len(first))
        return procrustes_disparity(first, second)

    def by_chance(
        self, x: LabeledCloud, y: LabeledCloud, n_draws: int, generator: torch.Generator
    ) -> list[Estimate]:
        first, second = self._centers(x, y)
        orders = (torch.randperm(len(second), generator=generator) for _ in range(n_draws))
        return [procrustes_disparity(first, second[order]) for order in orders]

    def _centers(self, x: LabeledCloud, y: LabeledCloud) -> tuple[Tensor, Tensor]:
        if self.pairing == "items":
            return x.item_centers, y.item_centers
        size = self.min_cluster_size
        first, second = x.cluster_centers(size), y.cluster_centers(size)
        if self.pairing == "cluster_numbers":
            n_common = min(len(first), len(second))
            return first[:n_common], second[:n_common]
        pairs = match_clusters(x.clusters(size), y.clusters(size)).pairs
        return first[pairs[:, 0]], second[pairs[:, 1]]


class UnmatchedMass(PairMetric):
    """Share of the clustered points that no pair of matched HDBSCAN clusters holds.

    See `geometry.match_clusters`. Null: the second space's clusters dealt to the points prompt by
    prompt, the prompts in random order. Undefined without a cluster.

    >>> metric = UnmatchedMass(min_cluster_size=5)
    >>> x = torch.cat([torch.linspace(0, 1, 8), torch.linspace(9, 10, 8)])[:, None]
    >>> metric.update(x, -x)
    >>> metric.compute().item()
    0.0
    """

    alternative = "less"
    bounds = (0.0, 1.0)
    shrinking = ("min_cluster_size",)
    higher_is_better = False

    def __init__(self, min_cluster_size: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.min_cluster_size = min_cluster_size

    def of_pair(self, x: LabeledCloud, y: LabeledCloud) -> Estimate:
        size = self.min_cluster_size
        return match_clusters(x.clusters(size), y.clusters(size)).unmatched_mass

    def by_chance(
        self, x: LabeledCloud, y: LabeledCloud, n_draws: int, generator: torch.Generator
    ) -> list[Estimate]:
        names, first = x.prompts.unique(return_inverse=True)
        own, other = (cloud.clusters(self.min_cluster_size) for cloud in (x, y))
        orders = (torch.randperm(len(names), generator=generator) for _ in range(n_draws))
        dealt = (other[order[first].argsort(stable=True)] for order in orders)
        return [match_clusters(own, labels).unmatched_mass for labels in dealt]


def _chosen(cloud: LabeledCloud) -> Tensor:
    return cloud.coordinates(cloud.labeled if len(cloud.labeled) else None)
