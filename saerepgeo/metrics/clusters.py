"""Clusters of a stream of points."""

from typing import Any

from saerepgeo.geometry.clusters import cluster
from saerepgeo.metrics.reservoir import PointReservoir
from saerepgeo.types import Estimate

__all__ = ["ClusterCount"]


class ClusterCount(PointReservoir):
    """Number of HDBSCAN clusters of the points.

    Of the sample (see `PointReservoir`). Points that are noise belong to no cluster; after
    `compute`, the attribute `n_noise` counts them. 0 for points without a cluster to see (fewer
    than `min_cluster_size`, or all equal); none at all: undefined.

    Args:
        min_cluster_size: fewer points are noise.
        min_samples: neighbors that make the density, `min_cluster_size` where None.
        max_points: size of the sample.

    >>> import torch
    >>> metric = ClusterCount()
    >>> metric.update(torch.cat([torch.linspace(0, 1, 8), torch.linspace(9, 10, 8)])[:, None])
    >>> metric.compute().item()
    2.0
    """

    plot_lower_bound = 0.0
    n_noise: int = 0

    def __init__(
        self,
        min_cluster_size: int = 5,
        min_samples: int | None = None,
        max_points: int = 5_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_points, **kwargs)
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples

    def estimate(self) -> Estimate:
        """Return the number of clusters of the sample with its counts of points."""
        if not len(self.points):
            return Estimate.undefined("no points")
        labels = cluster(self.points, self.min_cluster_size, min_samples=self.min_samples)
        self.n_noise = int((labels < 0).sum())
        count = (labels.max() + 1).double()
        return Estimate(count, len(labels), self.n_left_out)
