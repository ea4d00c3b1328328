"""The figures of the sound protocol as functions of points and labels, without their nulls."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.dimension import dimension_from_ratios
from saerepgeo.geometry.graphs import mst_weight
from saerepgeo.geometry.neighbours import nearest_neighbours
from saerepgeo.geometry.separation import centroids, class_moments, relative_aedp
from saerepgeo.metrics import (
    AverageGeodesicDistance,
    Betti0,
    ClusterCount,
    IntrinsicDimension,
    PointReservoir,
)
from saerepgeo.modules.radius import connection_radius
from saerepgeo.types import Estimate

__all__ = ["LABELLED", "FreeStatistic", "item_means", "label_free", "rotated"]

FreeStatistic = Callable[[Tensor], Estimate]

MIN_RATIOS = 30
"""Fewer neighbour ratios give no dimension (their standard error would be a fifth of it)."""


def label_free(n_points: int, min_cluster_size: int, n_neighbours: int) -> dict[str, FreeStatistic]:
    """Return the figures that know no items, as functions of points, for clouds of `n_points`."""

    def scaled(number: int, x: Tensor) -> int:
        # of a subsample, clusters and neighbourhoods are as much smaller as the sample is
        return max(2, round(number * len(x) / n_points))

    def size(x: Tensor) -> int:
        return scaled(min_cluster_size, x)

    def measured(metric: Callable[[Tensor], PointReservoir]) -> FreeStatistic:
        def statistic(x: Tensor) -> Estimate:
            made = metric(x)
            made.update(x)
            return made.estimate()

        return statistic

    exact: dict[str, Any] = {"dtype": torch.float64}
    return {
        "Clusters": measured(lambda x: ClusterCount(size(x), **exact)),
        "Betti0": measured(lambda x: Betti0(connection_radius(x, size(x)), **exact)),
        "AGD": measured(lambda x: AverageGeodesicDistance(scaled(n_neighbours, x), **exact)),
        "Global Dim": measured(lambda x: IntrinsicDimension(**exact)),
    }


def _pooled_dimension(x: Tensor, labels: Tensor) -> Estimate:
    ratios = []
    for label in labels[labels >= 0].unique():
        members = x[labels == label]
        if len(members) >= 3:
            distances = nearest_neighbours(members, 2).distances
            apart = distances[:, 0] > 0
            ratios.append(distances[apart, 1] / distances[apart, 0])
    n_ratios = sum(map(len, ratios))
    n_dropped = int((labels >= 0).sum()) - n_ratios
    if n_ratios < MIN_RATIOS:
        reason = f"{n_ratios} points with two neighbours of their item, {MIN_RATIOS} needed"
        return Estimate.undefined(reason, n_ratios, n_dropped)
    found = dimension_from_ratios(torch.cat(ratios), 0.1, method="mle")
    return found._replace(n_dropped=n_dropped)


def _tree_of_items(x: Tensor, labels: Tensor) -> Estimate:
    means = item_means(x, labels)
    if len(means) < 2:
        return Estimate.undefined(f"{len(means)} items have points, 2 needed", len(means))
    return Estimate(mst_weight(means), len(means), 0)


def _relative_aedp(x: Tensor, labels: Tensor) -> Estimate:
    return relative_aedp(class_moments(x, labels, int(labels.max()) + 1))


LABELLED: Mapping[str, Callable[[Tensor, Tensor], Estimate]] = {
    "Avg Dim": _pooled_dimension,
    "MST Weight": _tree_of_items,
    "Relative AEDP": _relative_aedp,
}


def item_means(x: Tensor, labels: Tensor) -> Tensor:
    """Return the centroids of the items that have points, in order."""
    return centroids(class_moments(x, labels, max(int(labels.max()) + 1, 1)))


def rotated(points: Tensor) -> Tensor:
    """Return centred points, in no more dimensions than there are points: distances stay."""
    x = points.detach().cpu().double()
    x = x - x.mean(0)
    if x.shape[1] <= x.shape[0]:
        return x
    values, vectors = torch.linalg.eigh(x @ x.T)
    kept = values > 1e-13 * values[-1]
    return vectors[:, kept] * values[kept].sqrt()
