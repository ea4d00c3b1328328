"""The harness must refuse metrics that break the contract; each breach here is a common one."""

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from saerepgeo.metrics.geometry_metric import GeometryMetric
from tests.metrics.harness import ProcessPair, check_metric

BATCHES = [(torch.arange(50.0) ** 2,), (torch.arange(3.0) + 1,)]


class Mean(GeometryMetric):
    """Mean of all points, from their sum and their number."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, x: Tensor) -> None:
        self.total += x.double().sum()
        self.count += len(x)

    def compute(self) -> Tensor:
        return self.total / self.count


class MeanOfMeans(Mean):
    """Averages the means of batches, so the figure depends on how points fall into batches."""

    def update(self, x: Tensor) -> None:
        self.total += x.double().mean()
        self.count += 1


class MeanPerProcess(Mean):
    """Forgets to reduce one of its states over the processes."""

    def __init__(self) -> None:
        super().__init__()
        self._reductions["count"] = torch.amax


class MeanInLowPrecision(Mean):
    """Lets a cast of the module round its sums."""

    _apply = Metric._apply


def test_a_sound_metric_passes(process_pair: ProcessPair) -> None:
    check_metric(Mean, BATCHES, process_pair)


@pytest.mark.parametrize("metric", [MeanOfMeans, MeanInLowPrecision])
def test_an_unsound_metric_is_refused(metric: type[Metric]) -> None:
    with pytest.raises(AssertionError):
        check_metric(metric, BATCHES)


def test_a_missing_reduction_is_refused(process_pair: ProcessPair) -> None:
    with pytest.raises(AssertionError):
        check_metric(MeanPerProcess, BATCHES, process_pair)


def test_an_error_in_a_process_is_reported(process_pair: ProcessPair) -> None:
    updates = [(torch.tensor([float("nan")]),)]
    with pytest.raises(pytest.fail.Exception, match="Encountered `nan` values"):
        process_pair.compute(MeanMetric("error"), [updates, updates])
