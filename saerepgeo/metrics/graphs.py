"""Spanning trees, components over scales and path lengths of clouds of points."""

import math
from typing import Any, Literal, get_args

from saerepgeo.geometry import graphs
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics.cloud_metric import CloudMetric
from saerepgeo.types import Estimate

Nodes = Literal["items", "clusters", "points"]


class MinimumSpanningTreeWeight(CloudMetric):
    """Sum of the edges of a Euclidean minimum spanning tree (MSTW); `n_used` counts its nodes.

    One point has weight 0; no points, or fewer than two centroids: undefined.

    Args:
        over: `items`, their centroids at the labeled points; `clusters`, the means of those of
            HDBSCAN; or `points`, whose weight grows like N^{1−1/d}: compare at equal numbers.

    >>> import torch
    >>> metric = MinimumSpanningTreeWeight("points")
    >>> metric.update(torch.arange(10.0)[:, None])
    >>> metric.compute().item()
    9.0
    """

    stem, title = "mstw", "MST Weight"
    null: Literal["gaussian", "items"] = "items"
    alternative = "greater"
    shrinking = ("min_cluster_size",)
    plot_lower_bound = 0.0

    def __init__(self, over: Nodes = "items", min_cluster_size: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if over not in get_args(Nodes):
            raise ValueError(f"`over` must be items, clusters or points, got {over!r}")
        self.over, self.min_cluster_size = over, min_cluster_size
        self.null = "items" if over == "items" else "gaussian"

    def of(self, cloud: LabeledCloud) -> Estimate:
        if self.over == "items":
            nodes = cloud.item_centers
        elif self.over == "clusters":
            nodes = cloud.cluster_centers(self.min_cluster_size)
        else:
            nodes = cloud.coordinates()
        if len(nodes) < (1 if self.over == "points" else 2):
            return Estimate.undefined(f"{len(nodes)} {self.over}, 2 needed", len(nodes))
        return graphs.mst_weight(nodes)


class Betti0(CloudMetric):
    """Connected components of the graph that joins points at most `radius` apart, β₀(radius).

    β₀ = 1 + #{edges of the minimum spanning tree longer than `radius`}. Not a count of clusters:
    every outlier is a component, and a sparser sample has more of them. No points: undefined.

    Args:
        radius: in the units of the points; None takes `connection_radius` at `n_neighbors`.

    >>> import torch
    >>> metric = Betti0(radius=2.0)
    >>> metric.update(torch.tensor([[0.0], [5.0], [2.0]]))
    >>> metric.compute().item()
    2.0
    """

    stem = "betti_0"
    alternative = "greater"
    is_count = True
    shrinking = ("n_neighbors",)
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
        radius = self.radius
        if radius is None:
            radius = graphs.connection_radius(cloud.cloud, self.n_neighbors)
        return graphs.betti_0(cloud.cloud, radius)


class AverageGeodesicDistance(CloudMetric):
    """Mean shortest path over pairs of points on the graph of `n_neighbors` neighbors (AGD).

    Takes O(max_points² · n_neighbors) time. Pairs that no path joins are left out: with several
    components the figure is a mean within them. Fewer than two points: undefined.

    >>> import torch
    >>> metric = AverageGeodesicDistance(n_neighbors=2)
    >>> metric.update(torch.arange(10.0)[:, None])
    >>> round(metric.compute().item(), 4)
    3.6667
    """

    stem, title = "agd", "AGD"
    reads_sources = True
    shrinking = ("n_neighbors",)
    plot_lower_bound = 0.0

    def __init__(self, n_neighbors: int = 10, max_points: int = 2_000, **kwargs: Any) -> None:
        super().__init__(max_points, **kwargs)
        if n_neighbors < 1:
            raise ValueError(f"`n_neighbors` must be at least 1, got {n_neighbors}")
        self.n_neighbors = n_neighbors

    def of(self, cloud: LabeledCloud) -> Estimate:
        return graphs.average_geodesic_distance(cloud.cloud, self.n_neighbors, cloud.sources)
