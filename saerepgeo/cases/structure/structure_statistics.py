"""The figures of the sound protocol as functions of points and labels, without their nulls."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.geometry.clouds.pairwise import rotated
from saerepgeo.geometry.clusters import cluster
from saerepgeo.geometry.dimension import two_nn
from saerepgeo.geometry.dimension import two_nn_within as pooled_dimension
from saerepgeo.geometry.graphs import (
    average_geodesic_distance,
    betti_0,
    connection_radius,
    mst_weight,
)
from saerepgeo.geometry.separation import centroids, class_moments, relative_aedp
from saerepgeo.types import Estimate, Int

__all__ = [
    "BY_CENTROIDS",
    "FreeFigures",
    "free_figures",
    "item_means",
    "pooled_dimension",
    "rotated",
]


class FreeFigures(NamedTuple):
    """What a cloud shows to one who knows no items."""

    figures: dict[str, Estimate]
    clusters: Int[Tensor, "_"]
    """HDBSCAN's, −1 for noise."""


def free_figures(
    cloud: Cloud,
    min_cluster_size: int,
    n_neighbors: int,
    sources: Int[Tensor, "source"] | None = None,
) -> FreeFigures:
    """Return `Clusters`, `Betti0`, `AGD` and `Global Dim` of a cloud, from one neighbor search.

    Args:
        cloud: all are figures of its distances.
        min_cluster_size: of HDBSCAN, and neighbors that set the radius of Betti-0.
        n_neighbors: of the graph of `average_geodesic_distance`.
        sources: points whose paths stand for all, see there.
    """
    n_points = cloud.n_points
    if n_points > 1:
        nearest_neighbors(cloud, min(max(min_cluster_size, n_neighbors, 2), n_points - 1))
    clusters = cluster(cloud, min_cluster_size)
    radius = connection_radius(cloud, min_cluster_size)
    figures = {
        "Clusters": Estimate((clusters.max() + 1).double(), n_points, 0),
        "Betti0": betti_0(cloud, radius),
        "AGD": average_geodesic_distance(cloud, n_neighbors, sources),
        "Global Dim": two_nn(cloud),
    }
    return FreeFigures(figures, clusters)


def _tree_of_items(x: Tensor, labels: Tensor) -> Estimate:
    means = item_means(x, labels)
    if len(means) < 2:
        return Estimate.undefined(f"{len(means)} items have points, 2 needed", len(means))
    return mst_weight(means)


def _relative_aedp(x: Tensor, labels: Tensor) -> Estimate:
    if not len(labels):
        return Estimate.undefined("no item has points")
    return relative_aedp(class_moments(x, labels, int(labels.max()) + 1))


BY_CENTROIDS: Mapping[str, Callable[[Tensor, Tensor], Estimate]] = {
    "MST Weight": _tree_of_items,
    "Relative AEDP": _relative_aedp,
}
"""Figures of points and their items that need no neighbors."""


def item_means(x: Tensor, labels: Tensor) -> Tensor:
    """Return the centroids of the items that have points, in order."""
    n_items = int(labels.max()) + 1 if len(labels) else 1
    return centroids(class_moments(x, labels, max(n_items, 1)))
