"""How far apart classes lie, over batches and processes."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import Alternative
from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    check_labels,
    class_moments,
    fisher_ratio,
    relative_aedp,
    scale_free_mstw,
)
from saerepgeo.geometry.silhouettes import silhouette
from saerepgeo.metrics.cloud_metric import CloudFigure, CloudMetric
from saerepgeo.metrics.geometry_metric import MergedStateMetric
from saerepgeo.types import Estimate, Float, Int, SparseLatents


class ClassMomentsMetric(CloudFigure, MergedStateMetric):
    """Base of figures that follow from counts, float64 sums and square sums of every class.

    The sums add up over batches and processes; memory is n_classes × dim, whatever the number of
    points. All classes are accumulated and `classes` chooses at the end, so that the figures of
    several concepts in one `MetricCollection` form a compute group with a single state.

    Pass effective latents (z_i·‖W_dec,i‖) where latents are meant, dense or sparse.

    Args:
        n_classes: number of class ids; None counts them. Labels of −1 are left out.
        classes: ids the figure is about, e.g. the items of one concept; all by default.

    Classes without points are counted in `n_dropped` of `estimate()`. Integer or non-finite points,
    labels out of range and widths that change between updates raise ValueError.
    """

    null = "items"
    alternative: ClassVar[Alternative] = "greater"
    counts: Tensor
    sums: Tensor
    square_sums: Tensor

    def __init__(
        self,
        n_classes: int | None = None,
        classes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_classes, self.classes = n_classes, _chosen_classes(n_classes, classes)
        size = n_classes or 0
        self.add_settings(n_classes)
        self.add_state("counts", torch.zeros(size, dtype=torch.long), dist_reduce_fx=None)
        self.add_state("sums", torch.zeros(size, 0, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("square_sums", torch.zeros(size, dtype=torch.float64), dist_reduce_fx=None)

    def update(
        self,
        points: Float[Tensor, "point dim"] | SparseLatents | LabeledCloud,
        labels: Int[Tensor, "point"] | None = None,
    ) -> None:
        """Add labeled points."""
        x: Any = points
        if isinstance(points, LabeledCloud):
            x, labels = points.points, points.labels
        if labels is None:
            raise ValueError("`labels` must be given with points, got None")
        n_classes = self.n_classes
        if n_classes is None:
            n_classes = max(int(labels.max()) + 1 if len(labels) else 0, len(self.counts), 1)
        with torch.no_grad():
            batch = class_moments(x, labels.to(_values(x).device), n_classes)
        width = self.sums.shape[1]
        if width not in (0, batch.sums.shape[1]):
            raise ValueError(f"`points` must have {width} columns, got {batch.sums.shape[1]}.")
        self._set(self.merge([self._state(), batch._asdict()]))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Add up moments; states that have seen no batch have no columns yet."""
        seen = [ClassMoments(**state) for state in states if state["sums"].shape[1]]
        if not seen:
            return states[0]
        most = max(len(moments.counts) for moments in seen)
        seen = [_padded(moments, most) for moments in seen]
        return sum(seen[1:], start=seen[0])._asdict()

    def estimate(self) -> Estimate:
        """Return the figure of the chosen classes."""
        return self._of_chosen(ClassMoments(**self._state()))

    def of(self, cloud: LabeledCloud) -> Estimate:
        """Return the figure of the items of a cloud, at its labeled points."""
        if not len(cloud.labeled):
            return Estimate.undefined("no item has points")
        return self._of_chosen(cloud.moments)

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return the figure of the moments."""
        raise NotImplementedError

    def _of_chosen(self, moments: ClassMoments) -> Estimate:
        return self.figure(moments if self.classes is None else moments.select(self.classes))


class AverageEuclideanDistance(ClassMomentsMetric):
    """Average Euclidean distance between pairs of centroids (AEDP), in the units of the points.

    See `geometry.average_pairwise_distance`. Undefined for fewer than two classes with points.

    >>> metric = AverageEuclideanDistance(n_classes=3)
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
    >>> metric.compute().item()
    4.0
    """

    stem, title = "aedp", "AEDP"

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return the AEDP."""
        n_empty = int((moments.counts == 0).sum())
        return average_pairwise_distance(centroids(moments))._replace(n_dropped=n_empty)


class RelativeAEDP(ClassMomentsMetric):
    """AEDP in units of the root mean within-class variance; free of scale.

    See `geometry.relative_aedp`. Undefined for fewer than two classes with points, or where no
    class scatters.

    >>> metric = RelativeAEDP()
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(metric.compute().item(), 4)  # 5/√2
    3.5355
    """

    title = "Relative AEDP"

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return the relative AEDP."""
        return relative_aedp(moments)


class FisherRatio(ClassMomentsMetric):
    """Scatter between classes over scatter within, trace(S_b)/trace(S_w); free of scale.

    See `geometry.fisher_ratio`. Undefined for fewer than two classes with points, or where no class
    scatters.

    >>> metric = FisherRatio()
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    >>> metric.compute().item()
    6.25
    """

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return the Fisher ratio."""
        return fisher_ratio(moments)


class ScaleFreeMSTW(ClassMomentsMetric):
    """Mean edge of the centroids' minimum spanning tree over their mean distance; free of scale.

    See `geometry.scale_free_mstw`. Undefined for fewer than two classes with points, or where all
    centroids are equal.

    >>> metric = ScaleFreeMSTW()
    >>> metric.update(torch.arange(5.0)[:, None], torch.arange(5))
    >>> round(metric.compute().item(), 12)
    0.5
    """

    title = "Scale-free MSTW"
    alternative: ClassVar[Alternative] = "two-sided"

    def figure(self, moments: ClassMoments) -> Estimate:
        """Return MSTW/((K−1)·AEDP)."""
        n_empty = int((moments.counts == 0).sum())
        return scale_free_mstw(centroids(moments))._replace(n_dropped=n_empty)


class Silhouette(CloudMetric):
    """Mean silhouette of labeled points, between −1 and 1.

    See `geometry.silhouette`. Keeps at most `max_points` points (see `CloudMetric`), for the figure
    needs all distances. Undefined for fewer than two classes and where every point is a class of
    its own. Points labeled −1, or outside the chosen classes, are not counted.

    Args:
        n_classes: number of class ids; None takes any.
        classes: ids the figure is about, e.g. the items of one concept; all by default.
        max_points: size of the sample.

    >>> metric = Silhouette()
    >>> metric.update(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(metric.compute().item(), 6)
    0.899749
    """

    null = "items"
    alternative = "greater"
    bounds = (-1.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        n_classes: int | None = None,
        classes: Sequence[int] | None = None,
        max_points: int = 5_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_points, **kwargs)
        self.n_classes, self.classes = n_classes, _chosen_classes(n_classes, classes)

    def add_points(
        self, points: Any, labels: Tensor | None = None, *columns: Any, **by_name: Any
    ) -> None:
        """Take points up into the sample; labels out of range are refused."""
        if self.n_classes is not None and labels is not None:
            check_labels(points, labels, self.n_classes)
        super().add_points(points, labels, *columns, **by_name)

    def of(self, cloud: LabeledCloud) -> Estimate:
        """Return the silhouette of the items of a cloud."""
        rows = cloud.labeled
        if self.classes is not None:
            rows = rows[torch.isin(cloud.labels[rows], torch.tensor(self.classes))]
        return silhouette(cloud.coordinates(rows), cloud.labels[rows])


def _values(points: Any) -> Tensor:
    return points.values if isinstance(points, SparseLatents) else points


def _padded(moments: ClassMoments, n_classes: int) -> ClassMoments:
    missing = n_classes - len(moments.counts)
    if not missing:
        return moments
    return ClassMoments(*(torch.cat([m, m.new_zeros(missing, *m.shape[1:])]) for m in moments))


def _chosen_classes(n_classes: int | None, classes: Sequence[int] | None) -> list[int] | None:
    if n_classes is not None and n_classes < 1:
        raise ValueError(f"`n_classes` must be at least 1, got {n_classes}.")
    if classes is None:
        return None
    if not all(0 <= k < (n_classes or k + 1) for k in classes):
        raise ValueError(f"`classes` must lie in 0…{n_classes} − 1 (`n_classes`), got {classes}.")
    return list(classes)
