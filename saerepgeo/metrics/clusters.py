"""HDBSCAN clusters of clouds of points."""

from typing import Any

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics.cloud_metric import CloudMetric
from saerepgeo.types import Estimate


class ClusterMetric(CloudMetric):
    """A figure of the HDBSCAN clusters of the sample (see `CloudMetric`), found once for all.

    Args:
        min_cluster_size: fewer points are noise; the density is that of as many neighbors.
    """

    plot_lower_bound = 0.0
    shrinking = ("min_cluster_size", "n_neighbors")

    def __init__(self, min_cluster_size: int = 10, max_points: int = 10_000, **kwargs: Any) -> None:
        super().__init__(max_points, **kwargs)
        self.min_cluster_size = self.n_neighbors = min_cluster_size


class ClusterCount(ClusterMetric):
    """Number of HDBSCAN clusters; noise belongs to none: read it beside `NoiseShare`.

    0 for fewer than `min_cluster_size` points, or all equal; no points: undefined.

    >>> import torch
    >>> metric = ClusterCount(min_cluster_size=5)
    >>> metric.update(torch.cat([torch.linspace(0, 1, 8), torch.linspace(9, 10, 8)])[:, None])
    >>> metric.compute().item()
    2.0
    """

    title = "Clusters"
    alternative = "greater"
    is_count = True

    def of(self, cloud: LabeledCloud) -> Estimate:
        count = cloud.clusters(self.min_cluster_size).max() + 1
        return Estimate(count.double(), cloud.n_points, 0)


class NoiseShare(ClusterMetric):
    """Share of the points that HDBSCAN leaves out of every cluster; no points: undefined.

    >>> import torch
    >>> metric = NoiseShare(min_cluster_size=5)
    >>> groups = torch.linspace(0, 1, 8), torch.linspace(9, 10, 8), torch.tensor([99.0])
    >>> metric.update(torch.cat(groups)[:, None])
    >>> round(metric.compute().item(), 3)
    0.059
    """

    bounds = (0.0, 1.0)
    plot_upper_bound = 1.0

    def of(self, cloud: LabeledCloud) -> Estimate:
        is_noise = cloud.clusters(self.min_cluster_size) < 0
        return Estimate(is_noise.double().mean(), cloud.n_points, 0)
