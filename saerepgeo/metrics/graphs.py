"""Spanning trees, components over scales and path lengths of clouds of points."""

import math
from typing import Any, Literal

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.graphs import (
    average_geodesic_distance,
    betti_0,
    connection_radius,
    mst_weight,
)
from saerepgeo.metrics.cloud_metric import CloudMetric, shrunk
from saerepgeo.types import Estimate


class MinimumSpanningTreeWeight(CloudMetric):
    """Sum of the edges of a Euclidean minimum spanning tree (MSTW).

    Of the item centroids at the labeled points, of the means of HDBSCAN clusters, or of the points
    themselves; the last grows like N^{1−1/d} with their number: compare at equal numbers. Fewer
    than two centroids: undefined. One point has weight 0; no points: undefined. `n_used` counts the
    nodes of the tree.

    Args:
        over: `items`, `clusters` or `points`.
        min_cluster_size: of HDBSCAN.

    >>> import torch
    >>> metric = MinimumSpanningTreeWeight("points")
    >>> metric.update(torch.arange(10.0)[:, None])
    >>> metric.compute().item()
    9.0
    """

    stem, title = "mstw", "MST Weight"
    null = "items"
    alternative = "greater"
    plot_lower_bound = 0.0

    def __init__(
        self,
        over: Literal["items", "clusters", "points"] = "items",
        min_cluster_size: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if over not in ("items", "clusters", "points"):
            raise ValueError(f"`over` must be items, clusters or points, got {over!r}")
        self.over, self.min_cluster_size = over, min_cluster_size
        if over != "items":
            self.null = "gaussian"  # type: ignore[misc, assignment]

    def of(self, cloud: LabeledCloud) -> Estimate:
        """Return the weight of the tree with its number of nodes."""
        if self.over == "points":
            nodes = cloud.coordinates()
        elif self.over == "clusters":
            nodes = cloud.cluster_centers(self.min_cluster_size)
        else:
            nodes = cloud.item_centers
        if len(nodes) < (1 if self.over == "points" else 2):
            return Estimate.undefined(f"{len(nodes)} {self.over}, 2 needed", len(nodes))
        return mst_weight(nodes)

    def scaled(self, share: float) -> "MinimumSpanningTreeWeight":
        """Return the metric for a share of the points."""
        made: MinimumSpanningTreeWeight = shrunk(self, share, "min_cluster_size")
        return made


class Betti0(CloudMetric):
    """Connected components of the graph that joins points at most `radius` apart, β₀(radius).

    β₀ = 1 + #{edges of the minimum spanning tree longer than `radius`}, of the sample (see
    `CloudMetric`). Not a count of clusters: every outlier is a component, and a sparser sample has
    more of them. No points: undefined.

    Args:
        radius: in the units of the points; None takes `connection_radius` at `n_neighbors`.
        n_neighbors: see `radius`.
        max_points: size of the sample.

    >>> import torch
    >>> metric = Betti0(radius=2.0)
    >>> metric.update(torch.tensor([[0.0], [5.0], [2.0]]))
    >>> metric.compute().item()
    2.0
    """

    stem = "betti_0"
    alternative = "greater"
    is_count = True
    plot_lower_bound = 0.0

    def __init__(
        self,
        radius: float | None = None,
        n_neighbors: int = 10,
        max_points: int = 10_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_points, **kwargs)
        if radius is not None and not 0 <= radius < math.inf:
            raise ValueError(f"`radius` must be finite and ≥ 0, got {radius}")
        self.radius, self.n_neighbors = radius, n_neighbors

    def of(self, cloud: LabeledCloud) -> Estimate:
        """Return the number of components with that of the points."""
        radius = self.radius
        if radius is None:
            radius = connection_radius(cloud.cloud, self.n_neighbors)
        return betti_0(cloud.cloud, radius)

    def scaled(self, share: float) -> "Betti0":
        """Return the metric for a share of the points."""
        made: Betti0 = shrunk(self, share, "n_neighbors")
        return made


class AverageGeodesicDistance(CloudMetric):
    """Mean shortest path over pairs of points on the graph of nearest neighbors (AGD).

    Of the sample (see `CloudMetric`); takes O(max_points² · n_neighbors) time. Pairs that no path
    joins are left out: with several components the figure is a mean within them. Fewer than two
    points: undefined. `n_used` counts points.

    Args:
        n_neighbors: of the graph.
        max_points: size of the sample.

    >>> import torch
    >>> metric = AverageGeodesicDistance(n_neighbors=2)
    >>> metric.update(torch.arange(10.0)[:, None])
    >>> round(metric.compute().item(), 4)
    3.6667
    """

    stem, title = "agd", "AGD"
    reads_sources = True
    plot_lower_bound = 0.0

    def __init__(self, n_neighbors: int = 10, max_points: int = 2_000, **kwargs: Any) -> None:
        super().__init__(max_points, **kwargs)
        if n_neighbors < 1:
            raise ValueError(f"`n_neighbors` must be at least 1, got {n_neighbors}")
        self.n_neighbors = n_neighbors

    def of(self, cloud: LabeledCloud) -> Estimate:
        """Return the mean path length with the number of points."""
        return average_geodesic_distance(cloud.cloud, self.n_neighbors, cloud.sources)

    def scaled(self, share: float) -> "AverageGeodesicDistance":
        """Return the metric for a share of the points."""
        made: AverageGeodesicDistance = shrunk(self, share, "n_neighbors")
        return made
