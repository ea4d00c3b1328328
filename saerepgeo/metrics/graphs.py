"""Spanning tree, components over scales and path lengths of a stream of points."""

import math
from typing import Any

from saerepgeo.geometry.graphs import (
    average_geodesic_distance,
    betti_0,
    mst_weight,
    neighbor_graph_components,
)
from saerepgeo.metrics.reservoir import PointReservoir
from saerepgeo.types import Estimate

__all__ = ["AverageGeodesicDistance", "Betti0", "MinimumSpanningTreeWeight"]


class MinimumSpanningTreeWeight(PointReservoir):
    """Sum of the edges of the Euclidean minimum spanning tree of the points (MSTW).

    Grows like N^{1−1/d} with the number of points: of more than `max_points` it is the tree of the
    sample that counts (see `PointReservoir`), so compare at equal numbers. Of points only; for the
    tree of class centroids update with the centroids. One point has weight 0; none: undefined.

    >>> import torch
    >>> metric = MinimumSpanningTreeWeight()
    >>> metric.update(torch.arange(10.0)[:, None])
    >>> metric.compute().item()
    9.0
    """

    plot_lower_bound = 0.0

    def estimate(self) -> Estimate:
        """Return the weight of the sample's tree with its counts."""
        return mst_weight(self.points)._replace(n_dropped=self.n_left_out)


class Betti0(PointReservoir):
    """Connected components of the graph that joins points at most `radius` apart, β₀(radius).

    β₀ = 1 + #{edges of the minimum spanning tree longer than `radius`}, of the sample (see
    `PointReservoir`). Not a count of clusters: every outlier is a component, and a sparser sample
    has more of them. No points: undefined.

    Args:
        radius: in the units of the points.
        max_points: size of the sample.

    >>> import torch
    >>> metric = Betti0(radius=2.0)
    >>> metric.update(torch.tensor([[0.0], [5.0], [2.0]]))
    >>> metric.compute().item()
    2.0
    """

    plot_lower_bound = 0.0

    def __init__(self, radius: float, max_points: int = 10_000, **kwargs: Any) -> None:
        super().__init__(max_points, **kwargs)
        if not 0 <= radius < math.inf:
            raise ValueError(f"`radius` must be finite and ≥ 0, got {radius}")
        self.radius = radius

    def estimate(self) -> Estimate:
        """Return the number of components of the sample with its counts."""
        return betti_0(self.points, self.radius)._replace(n_dropped=self.n_left_out)


class AverageGeodesicDistance(PointReservoir):
    """Mean shortest path over pairs of points on the graph of nearest neighbors (AGD).

    Of the sample (see `PointReservoir`); takes O(max_points² · n_neighbors) time. Pairs that no
    path joins are left out: after `compute`, the attribute `n_components` says into how many parts
    the graph falls, and with more than one the figure is a mean within parts. Fewer than two
    points: undefined.

    Args:
        n_neighbors: of a point in the graph.
        max_points: size of the sample.

    >>> import torch
    >>> metric = AverageGeodesicDistance(n_neighbors=2)
    >>> metric.update(torch.arange(10.0)[:, None])
    >>> round(metric.compute().item(), 4)
    3.6667
    """

    plot_lower_bound = 0.0
    n_components: int = 0

    def __init__(self, n_neighbors: int = 10, max_points: int = 2_000, **kwargs: Any) -> None:
        super().__init__(max_points, **kwargs)
        if n_neighbors < 1:
            raise ValueError(f"`n_neighbors` must be at least 1, got {n_neighbors}")
        self.n_neighbors = n_neighbors

    def estimate(self) -> Estimate:
        """Return the mean path length of the sample with its counts of points."""
        self.n_components = neighbor_graph_components(self.points, self.n_neighbors)
        figure = average_geodesic_distance(self.points, self.n_neighbors)
        return figure._replace(n_dropped=self.n_left_out)
