"""How far apart classes lie, over batches and processes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from saerepgeo.geometry import debiased_separation, separation
from saerepgeo.geometry.clouds.conversion import check_labels_of
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import Alternative
from saerepgeo.geometry.separation import ClassMoments, centroids, check_labels, class_moments
from saerepgeo.geometry.silhouettes import silhouette
from saerepgeo.metrics.cloud_metric import CloudFigure, CloudMetric
from saerepgeo.metrics.geometry_metric import MergedStateMetric
from saerepgeo.types import Estimate, Float, Int, SparseLatents


class ClassMomentsMetric(CloudFigure, MergedStateMetric):
    """Base of figures that follow from counts, float64 sums and square sums of every class.

    Figures of several concepts in one `MetricCollection` form a compute group. Pass effective
    latents (z_i·‖W_dec,i‖). Classes without points count as `n_dropped`; fewer than two others:
    undefined. Integer or non-finite points, labels out of range and widths that change between
    updates raise ValueError.

    Args:
        n_classes: number of class ids; None counts them. Labels of −1 are left out.
        classes: ids the figure is about, e.g. the items of one concept; all by default.
    """

    null = "items"
    alternative: Alternative = "greater"
    figure: Callable[[ClassMoments], Estimate]
    """The figure of the moments."""
    counts: Tensor
    sums: Tensor
    square_sums: Tensor

    def __init__(
        self, n_classes: int | None = None, classes: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.n_classes, self.classes = n_classes, _chosen_classes(n_classes, classes)
        self.add_settings(n_classes)
        none = class_moments(torch.zeros(0, 0), torch.zeros(0, dtype=torch.long), n_classes or 0)
        for name, moment in none._asdict().items():
            self.add_state(name, moment, dist_reduce_fx=None)

    def update(
        self,
        points: Float[Tensor, "point dim"] | SparseLatents | LabeledCloud,
        labels: Int[Tensor, "point"] | None = None,
    ) -> None:
        x: Any = points
        if isinstance(points, LabeledCloud):
            x, labels = points.points, points.labels
        if labels is None:
            raise ValueError("`labels` must be given with points, got None")
        check_labels_of(x, labels)
        n_seen = int(labels.max()) + 1 if len(labels) else 0
        n_classes = self.n_classes or max(n_seen, len(self.counts), 1)
        with torch.no_grad():
            values = x.values if isinstance(x, SparseLatents) else x
            batch = class_moments(x, labels.to(values.device), n_classes)
        width = self.sums.shape[1]
        if width not in (0, batch.sums.shape[1]):
            raise ValueError(f"`points` must have {width} columns, got {batch.sums.shape[1]}.")
        self._set(self.merge([self._state(), batch._asdict()]))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        # states that have seen no batch have no columns yet
        seen = [state for state in states if state["sums"].shape[1]] or states[:1]
        stacked = {name: pad_sequence([s[name] for s in seen], True) for name in states[0]}
        return {name: moments.sum(0) for name, moments in stacked.items()}

    def estimate(self) -> Estimate:
        return self._of_chosen(ClassMoments(**self._state()))

    def of(self, cloud: LabeledCloud) -> Estimate:
        if not len(cloud.labeled):
            return Estimate.undefined("no item has points")
        return self._of_chosen(cloud.moments)

    def _of_chosen(self, moments: ClassMoments) -> Estimate:
        chosen = moments if self.classes is None else moments.select(self.classes)
        return self.figure(chosen)._replace(n_dropped=int((chosen.counts == 0).sum()))


class AverageEuclideanDistance(ClassMomentsMetric):
    """Average Euclidean distance between pairs of centroids (AEDP), in the units of the points.

    >>> metric = AverageEuclideanDistance(n_classes=3)
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
    >>> metric.compute().item()
    4.0
    """

    stem, title = "aedp", "AEDP"

    def figure(self, moments: ClassMoments) -> Estimate:
        return separation.average_pairwise_distance(centroids(moments))


class RelativeAEDP(ClassMomentsMetric):
    """AEDP in units of the root mean within-class variance; undefined where no class scatters.

    >>> metric = RelativeAEDP()
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(metric.compute().item(), 4)  # 5/√2
    3.5355
    """

    title = "Relative AEDP"
    figure = staticmethod(separation.relative_aedp)


class FisherRatio(ClassMomentsMetric):
    """Scatter between classes over that within, trace(S_b)/trace(S_w); undefined where that is 0.

    >>> metric = FisherRatio()
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    >>> metric.compute().item()
    6.25
    """

    figure = staticmethod(separation.fisher_ratio)


class DebiasedAEDP(ClassMomentsMetric):
    """AEDP of squared distances less their noise: no drift with the number of points a class.

    >>> metric = DebiasedAEDP()
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(metric.compute().item(), 4)  # √(25 − 2)
    4.7958
    """

    title = "Debiased AEDP"
    figure = staticmethod(debiased_separation.debiased_aedp)


class DebiasedRelativeAEDP(ClassMomentsMetric):
    """Debiased AEDP in units of the root mean within-class variance.

    >>> metric = DebiasedRelativeAEDP()
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(metric.compute().item(), 4)  # √23/√2
    3.3912
    """

    title = "Debiased relative AEDP"
    figure = staticmethod(debiased_separation.debiased_relative_aedp)


class DebiasedFisherRatio(ClassMomentsMetric):
    """Fisher ratio less the noise of the centroids: no drift with the number of points a class.

    >>> metric = DebiasedFisherRatio()
    >>> metric.update(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    >>> metric.compute().item()  # (25 − 2)/(4·2)
    2.875
    """

    figure = staticmethod(debiased_separation.debiased_fisher_ratio)


class ScaleFreeMSTW(ClassMomentsMetric):
    """Mean edge of the centroids' tree over their mean distance; undefined where all are equal.

    >>> metric = ScaleFreeMSTW()
    >>> metric.update(torch.arange(5.0)[:, None], torch.arange(5))
    >>> round(metric.compute().item(), 12)
    0.5
    """

    title = "Scale-free MSTW"
    alternative = "two-sided"

    def figure(self, moments: ClassMoments) -> Estimate:
        return separation.scale_free_mstw(centroids(moments))


class Silhouette(CloudMetric):
    """Mean silhouette of labeled points, between −1 and 1; classes as of `ClassMomentsMetric`.

    Undefined for fewer than two classes and where every point is a class of its own.

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

    def check(self, points: Any, labels: Tensor | None) -> None:
        if self.n_classes is not None and labels is not None:
            check_labels(points, labels, self.n_classes)

    def of(self, cloud: LabeledCloud) -> Estimate:
        rows = cloud.labeled
        if self.classes is not None:
            rows = rows[torch.isin(cloud.labels[rows], torch.tensor(self.classes))]
        return silhouette(cloud.part(rows), cloud.labels[rows])


def _chosen_classes(n_classes: int | None, classes: Sequence[int] | None) -> list[int] | None:
    if n_classes is not None and n_classes < 1:
        raise ValueError(f"`n_classes` must be at least 1, got {n_classes}.")
    if classes is None:
        return None
    if not all(0 <= k < (n_classes or k + 1) for k in classes):
        raise ValueError(f"`classes` must lie in 0…{n_classes} − 1 (`n_classes`), got {classes}.")
    return list(classes)
