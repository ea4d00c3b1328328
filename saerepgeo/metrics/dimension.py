"""Intrinsic dimension of clouds of points."""

from collections.abc import Sequence
from typing import Any

import torch
from scipy import stats

from saerepgeo.geometry import dimension_from_ratios, gride, two_nn, two_nn_within
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.geometry.dimension import TOLERANCE, Method, ScaleCurve
from saerepgeo.metrics.cloud_metric import CloudMetric
from saerepgeo.types import Estimate, Interval


class TwoNN(CloudMetric):
    """Intrinsic dimension by TwoNN: d from the ratios r₂/r₁ of neighbor distances.

    A smaller sample (see `CloudMetric`) looks at a larger scale: compare at equal numbers of
    points. Undefined for fewer than 30 distinct points; duplicates are merged and count as dropped.

    Args:
        discard: fraction of the largest ratios set aside.
        method: `"linear"` or `"mle"`.
        tolerance: relative distance below which two points are one.

    >>> metric = TwoNN()
    >>> metric.update(torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)))
    >>> round(metric.compute().item(), 1)
    2.0
    """

    title = "Global Dim"
    n_neighbors = 2

    def __init__(
        self,
        max_points: int = 10_000,
        discard: float = 0.1,
        method: Method = "linear",
        tolerance: float = TOLERANCE,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_points, **kwargs)
        self.discard, self.tolerance = discard, tolerance
        self.method: Method = method

    def of(self, cloud: LabeledCloud) -> Estimate:
        return two_nn(cloud.cloud, self.discard, method=self.method, tolerance=self.tolerance)


class TwoNNWithin(CloudMetric):
    """Intrinsic dimension within items: TwoNN, neighbors of the same item, all ratios in one fit.

    See `geometry.two_nn_within`; undefined for fewer than 30 points with two such neighbors.

    >>> metric = TwoNNWithin()
    >>> plane = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    >>> metric.update(plane, labels=torch.arange(2000) % 2)
    >>> round(metric.compute().item(), 1)
    2.0
    """

    title = "Avg Dim"
    null = "items"
    reads_named = True

    def of(self, cloud: LabeledCloud) -> Estimate:
        return two_nn_within(cloud.cloud, cloud.named)


class TwoNNPerCluster(CloudMetric):
    """Mean TwoNN dimension of the HDBSCAN clusters, as the paper's code takes it.

    Duplicates are not merged, clusters of three points count as much as others, and the fraction
    `discard` of the largest ratios is set aside. `n_used` counts clusters; none: undefined.

    >>> metric = TwoNNPerCluster(min_cluster_size=20)
    >>> metric.update(torch.rand(500, 2, generator=torch.Generator().manual_seed(0)))
    >>> metric.estimate().n_used
    2
    """

    title = "Avg Dim"

    def __init__(self, min_cluster_size: int = 10, discard: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.min_cluster_size, self.discard = min_cluster_size, discard

    def of(self, cloud: LabeledCloud) -> Estimate:
        clusters = cloud.clusters(self.min_cluster_size)
        members = [(clusters == k).nonzero()[:, 0] for k in range(int(clusters.max()) + 1)]
        found = []
        for rows in members:
            if len(rows) > 2:
                distances = nearest_neighbors(cloud.coordinates(rows), 2).distances
                apart = distances[distances[:, 0] > 0]
                found.append(dimension_from_ratios(apart[:, 1] / apart[:, 0], self.discard))
        values = [figure.value for figure in found if figure.reason is None]
        if not values:
            return Estimate.undefined("no cluster has a dimension", 0, len(members))
        return Estimate(torch.stack(values).mean(), len(values), len(members) - len(values))


class GRIDE(CloudMetric):
    """Intrinsic dimension over scales: neighbors n₁ and 2·n₁ for each of several n₁.

    One figure a scale, `gride/1`, `gride/2`, …; see `geometry.gride`. Intervals follow from the
    Fisher information. Scales that need more neighbors than there are points are left out; fewer
    than 30 distinct points: undefined.

    Args:
        n1: numbers of neighbors.
        tolerance: relative distance below which two points are one.

    >>> metric = GRIDE(n1=(1, 2))
    >>> metric.update(torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)))
    >>> {name: round(value.item(), 1) for name, value in metric.compute().items()}
    {'gride/1': 3.0, 'gride/2': 2.8}
    """

    is_drawn = False

    def __init__(
        self, n1: Sequence[int] = (1, 2, 4, 8, 16, 32), tolerance: float = TOLERANCE, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.n1, self.tolerance = tuple(n1), tolerance
        self.n_neighbors = 2 * max(self.n1, default=0)

    def curve(self, cloud: LabeledCloud) -> ScaleCurve:
        """Return the dimension at each scale, with the scales and standard errors."""
        key = ("scale curve", self.n1, self.tolerance)
        return cloud.found(key, lambda: gride(cloud.cloud, self.n1, tolerance=self.tolerance))

    def own_intervals(self, cloud: LabeledCloud, level: float) -> dict[str, Interval]:
        curve = self.curve(cloud)
        half = float(stats.norm.ppf(0.5 + level / 2)) * curve.standard_errors
        ends = torch.stack([curve.dimensions - half, curve.dimensions + half], 1).tolist()
        names = [f"{self.stem}/{n1}" for n1 in curve.n1.tolist()]
        return {
            name: Interval(low, high, level, 0)
            for name, (low, high) in zip(names, ends, strict=True)
        }

    def figures(self, cloud: LabeledCloud) -> dict[str, Estimate]:
        curve = self.curve(cloud)
        if not len(curve.n1):
            undefined = Estimate.undefined(str(curve.reason), curve.n_used, curve.n_dropped)
            return {f"{self.stem}/{self.n1[0]}": undefined}
        return {
            f"{self.stem}/{n1}": Estimate(value, curve.n_used, curve.n_dropped, curve.reason)
            for n1, value in zip(curve.n1.tolist(), curve.dimensions, strict=True)
        }
