"""What all wrappers share: metrics of any kind by name, evaluated on clouds, draw by draw."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from typing import Any, NamedTuple, TypeVar

import torch
from torchmetrics import Metric, MetricCollection

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import PermutationTest
from saerepgeo.metrics.cloud_metric import CloudFigure, CloudMetric, PairMetric
from saerepgeo.metrics.geometry_metric import snake_case
from saerepgeo.types import Estimate, Interval, to_dense

Metrics = Metric | MetricCollection | Sequence[Metric] | Mapping[str, Metric]
Given = TypeVar("Given")
Made = TypeVar("Made")


class Figure(NamedTuple):
    """A number with what it takes to believe it."""

    estimate: Estimate
    interval: Interval | None = None
    test: PermutationTest | None = None
    tested: float | None = None
    """The figure of the points that the null imitates, where these are not all."""

    def by_name(self, name: str) -> dict[str, Estimate]:
        """Return `{name}` and what there is of `{name}/low`, `/high`, `/null` and `/p`."""
        numbers: dict[str, float] = {}
        if self.interval is not None:
            numbers |= {"low": self.interval.low, "high": self.interval.high}
        if self.test is not None:
            numbers |= {"null": self.test.null_mean, "p": self.test.p_value}
        beside = {f"{name}/{part}": self._beside(x) for part, x in numbers.items()}
        return {name: self.estimate} | beside

    def _beside(self, value: float) -> Estimate:
        if math.isfinite(value) or self.estimate.reason is not None:
            return self.estimate.with_value(value)
        why = self.test.reason if self.test is not None else None
        return Estimate.undefined(why or "too few draws", self.estimate.n_used)


class PlainMetric(CloudFigure):
    """Any other torchmetric, `update(points)` or `update(points, labels)`, as a cloud's figure."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric
        self.stem = self.title = snake_case(type(metric).__name__)
        second = list(signature(metric.update).parameters.values())[1:2]
        # what may be left out, as the weights of a mean, is no label
        self.reads_labels = any(p.name == "labels" or p.default is p.empty for p in second)
        if self.reads_labels:
            self.null, self.alternative = "items", "greater"

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.metric.update(*args, **kwargs)

    def figures(self, cloud: LabeledCloud) -> dict[str, Estimate]:
        metric = self.metric.clone()
        metric.reset()
        points = to_dense(cloud.points)
        rows = cloud.labeled if self.reads_labels else torch.arange(cloud.n_points)
        points = points[rows.to(points.device)]
        labels = [cloud.labels[rows].to(points.device)] if self.reads_labels else []
        metric.distributed_available_fn = lambda: False  # every process has all the points
        metric.to(points.device).update(points, *labels)
        value = metric.compute()
        values = value if isinstance(value, Mapping) else {"": value}
        return {
            f"{self.stem}/{name}".rstrip("/"): _as_estimate(each, len(rows))
            for name, each in values.items()
        }


def named_metrics(metrics: Metrics) -> dict[str, CloudFigure]:
    """Return metrics by the name of their figures; ValueError where two have one name."""
    several = metrics.values() if isinstance(metrics, MetricCollection | Mapping) else metrics
    found: dict[str, CloudFigure] = {}
    for metric in [several] if isinstance(several, Metric) else several:
        figure = metric if isinstance(metric, CloudFigure) else PlainMetric(metric)
        if figure.stem in found:
            raise ValueError(f"`metrics` must have names of their own, got `{figure.stem}` twice")
        found[figure.stem] = figure
    return found


class CloudWrapper(CloudMetric):
    """A metric around metrics of clouds, or of pairs: one, several, a collection; any torchmetric.

    It holds the points itself. A draw of them, and the neighbors found in it, serves all metrics;
    `seed` is that of the draws.
    """

    def __init__(self, metrics: Metrics, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.metrics, self.draw_seed = named_metrics(metrics), seed
        kinds = {isinstance(metric, PairMetric) for metric in self.metrics.values()}
        if len(kinds) > 1:
            raise ValueError("`metrics` must be all of one cloud or all of pairs, got both")
        self.is_of_pairs = kinds == {True}

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add points: what the metrics inside take, those of pairs two representations."""
        add = self.add_pairs if self.is_of_pairs else super().update
        add(*args, **kwargs)

    @property
    def drawn(self) -> list[CloudFigure]:
        """The metrics that are computed on draws."""
        return [metric for metric in self.metrics.values() if metric.is_drawn]

    def metric_of(self, name: str) -> CloudFigure:
        """Return the metric that a figure is of."""
        known = self.metrics.get(name.split("/")[0])
        owners = (metric for metric in self.metrics.values() if name in metric.given_names)
        return known or next(owners)

    def results(self, *clouds: LabeledCloud) -> dict[str, Figure]:
        """Return the figures of a cloud, or of a pair, with what surrounds them."""
        raise NotImplementedError

    def _figures_of_sample(self) -> dict[str, Estimate]:
        found: dict[str, Estimate] = {}
        for name, figure in self.results(*self.clouds).items():
            found |= figure.by_name(name)
        return found


def in_threads(function: Callable[[Given], Made], given: Sequence[Given]) -> list[Made]:
    """Return `function` of each of `given`, in order, on as many threads as torch may use.

    `function` must not change what others read. Each thread computes on one core, without
    gradients.

    >>> in_threads(lambda x: x * x, [1, 2, 3])
    [1, 4, 9]
    """
    n_before = torch.get_num_threads()
    n_workers = min(n_before, len(given))
    if n_workers <= 1:
        return [function(item) for item in given]
    in_thread = torch.no_grad()(function)  # whether gradients are kept is every thread's own
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(in_thread, given))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_before)


def _as_estimate(value: Any, n_points: int) -> Estimate:
    scalar = torch.as_tensor(value).detach().double().cpu()
    if scalar.numel() != 1:
        raise ValueError(f"a figure must be one number, got shape {tuple(scalar.shape)}")
    if not bool(scalar.isfinite()):
        return Estimate.undefined(f"the metric gave {float(scalar)}", n_points)
    return Estimate(scalar.reshape(()), n_points, 0)
