"""How far apart classes lie, over batches and processes: figures from class moments."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    class_moments,
    fisher_ratio,
    relative_aedp,
    scale_free_mstw,
)
from saerepgeo.metrics.estimates import EstimateMetric
from saerepgeo.metrics.geometry_metric import MergedStateMetric
from saerepgeo.types import Estimate, Float, Int, SparseLatents

__all__ = [
    "AverageEuclideanDistance",
    "ClassMomentsMetric",
    "FisherRatio",
    "RelativeAEDP",
    "ScaleFreeMSTW",
    "chosen_classes",
]


class ClassMomentsMetric(EstimateMetric, MergedStateMetric):
    """Base of figures that follow from counts, float64 sums and square sums of every class.

    The sums add up over batches and processes; memory is n_classes × dim, whatever the number of
    points. All classes are accumulated and `classes` chooses at the end, so that the figures of
    several concepts in one `MetricCollection` form a compute group with a single state.

    Pass effective latents (z_i·‖W_dec,i‖) where latents are meant, dense or sparse.

    Args:
        n_classes: number of class ids; labels of −1 are left out.
        classes: ids the figure is about, e.g. the items of one concept; all by default.

    Classes without points are counted in `n_dropped` of `estimate()`. Integer or non-finite points,
    labels out of range and widths that change between updates raise ValueError.
    """

    counts: Tensor
    sums: Tensor
    square_sums: Tensor

    def __init__(self, n_classes: int, classes: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_classes = n_classes
        self.classes = chosen_classes(n_classes, classes)
        self.add_state("counts", torch.zeros(n_classes, dtype=torch.long), dist_reduce_fx=None)
        self.add_state("sums", torch.zeros(n_classes, 0, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state(
            "square_sums", torch.zeros(n_classes, dtype=torch.float64), dist_reduce_fx=None
        )

    def update(
        self, points: Float[Tensor, "point dim"] | SparseLatents, labels: Int[Tensor, "point"]
    ) -> None:
        """Add labeled points."""
        with torch.no_grad():
            batch = class_moments(points, labels, self.n_classes)
        width = self.sums.shape[1]
        if width not in (0, batch.sums.shape[1]):
            raise ValueError(f"`points` must have {width} columns, got {batch.sums.shape[1]}.")
        self._set(self.merge([self._moments()._asdict(), batch._asdict()]))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Add up moments; states that have seen no batch have no columns yet."""
        seen = [ClassMoments(**state) for state in states if state["sums"].shape[1]]
        if not seen:
            return states[0]
        return sum(seen[1:], start=seen[0])._asdict()

    def estimate(self) -> Estimate:
        """Return the figure of the chosen classes."""
        return self.figure(self._moments().select(self.classes))

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return the figure of the moments."""
        raise NotImplementedError

    def _moments(self) -> ClassMoments:
        return ClassMoments(self.counts, self.sums, self.square_sums)


class AverageEuclideanDistance(ClassMomentsMetric):
    """Average Euclidean distance between pairs of centroids (AEDP), in the units of the points.

    See `geometry.average_pairwise_distance`. Undefined for fewer than two classes with points.

    >>> metric = AverageEuclideanDistance(n_classes=3)
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
    >>> metric.compute().item()
    4.0
    """

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return the AEDP."""
        n_empty = int((moments.counts == 0).sum())
        return average_pairwise_distance(centroids(moments))._replace(n_dropped=n_empty)


class RelativeAEDP(ClassMomentsMetric):
    """AEDP in units of the root mean within-class variance; free of scale.

    See `geometry.relative_aedp`. Undefined for fewer than two classes with points, or where no
    class scatters.
    """

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return the relative AEDP."""
        return relative_aedp(moments)


class FisherRatio(ClassMomentsMetric):
    """Scatter between classes over scatter within, trace(S_b)/trace(S_w); free of scale.

    See `geometry.fisher_ratio`. Undefined for fewer than two classes with points, or where no class
    scatters.
    """

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return the Fisher ratio."""
        return fisher_ratio(moments)


class ScaleFreeMSTW(ClassMomentsMetric):
    """Mean edge of the centroids' minimum spanning tree over their mean distance; free of scale.

    See `geometry.scale_free_mstw`. Undefined for fewer than two classes with points, or where all
    centroids are equal.
    """

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return MSTW/((K−1)·AEDP)."""
        n_empty = int((moments.counts == 0).sum())
        return scale_free_mstw(centroids(moments))._replace(n_dropped=n_empty)


def chosen_classes(n_classes: int, classes: Sequence[int] | None) -> list[int]:
    """Return the class ids of a figure, all where `classes` is None; ValueError for others."""
    chosen = range(n_classes) if classes is None else classes
    if n_classes < 1 or not all(0 <= k < n_classes for k in chosen):
        raise ValueError(f"`classes` must lie in 0…{n_classes - 1} (n_classes), got {classes}.")
    return list(chosen)
