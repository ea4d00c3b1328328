"""Dimension metric and the sample it shares with the other point metrics."""

import math
from inspect import unwrap

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from saerepgeo.geometry import gride, two_nn
from saerepgeo.metrics import (
    GRIDE,
    CloudMetric,
    SubsampleInterval,
    TwoNN,
    TwoNNPerCluster,
    TwoNNWithin,
)
from saerepgeo.types import SparseLatents
from tests.metrics.harness import ProcessPair, check_metric


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def updated(metric: CloudMetric, points: Tensor, batch: int = 64) -> CloudMetric:
    for part in points.split(batch):
        metric.update(part)
    return metric


def rows_of(points: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in points.tolist()}


@pytest.mark.parametrize("max_points", [10_000, 60])
def test_contract(max_points: int, process_pair: ProcessPair) -> None:
    updates = [(part,) for part in normal(200, 6).split([90, 10, 60, 40])]
    # of a bounded sample, rounded points are other points: another sample
    tolerance = 0.05 if max_points > 200 else None
    check_metric(
        lambda: TwoNN(max_points, method="mle"),
        updates,
        process_pair,
        low_precision_rtol=tolerance,
    )


@pytest.mark.parametrize("make", [TwoNNWithin, lambda: TwoNNPerCluster(20), GRIDE])
def test_contract_of_the_others(make, process_pair: ProcessPair) -> None:
    points, labels = normal(200, 6).bfloat16().float(), torch.arange(200) % 3
    sizes = [90, 10, 60, 40]
    updates = list(zip(points.split(sizes), labels.split(sizes), strict=True))
    check_metric(make, updates, process_pair)


@pytest.mark.parametrize("method", ["linear", "mle"])
def test_dimension_is_that_of_the_points(method) -> None:
    points = normal(300, 7)
    metric = updated(TwoNN(method=method, discard=0.2), points)
    expected = two_nn(points, 0.2, method=method)
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-12)
    assert metric.estimate()[1:] == expected[1:]
    scales = updated(GRIDE(), points)
    values = torch.stack(list(scales.compute().values()))
    torch.testing.assert_close(values, gride(points).dimensions, rtol=1e-9, atol=0)


def test_interval_holds_the_figure() -> None:
    metric = updated(SubsampleInterval(TwoNN(), n_draws=20), normal(400, 3))
    found = metric.compute()
    assert found["two_nn/low"] < found["two_nn"] < found["two_nn/high"]


def test_duplicates_and_points_left_out_are_counted() -> None:
    metric = updated(TwoNN(50), normal(80, 4))
    assert (metric.estimate().n_used, metric.estimate().n_dropped) == (50, 30)
    doubled = updated(TwoNN(), normal(40, 4).repeat(3, 1))
    assert (doubled.estimate().n_used, doubled.estimate().n_dropped) == (40, 80)


@pytest.mark.parametrize("n", [0, 1, 29])
def test_too_few_points_are_undefined(n: int) -> None:
    metric = TwoNN()
    metric.update(normal(n, 3))
    assert math.isnan(metric.compute())
    assert ("at least 30" if n else "no points") in str(metric.reason)


def test_an_undefined_curve_is_named_by_its_first_scale() -> None:
    metric = updated(GRIDE(n1=(2, 4)), normal(20, 3))
    assert list(metric.compute()) == ["gride/2"]


def test_equal_points_are_undefined() -> None:
    metric = updated(TwoNN(), torch.full((100, 3), 0.1))
    assert math.isnan(metric.compute())
    assert metric.estimate().n_dropped == 99


def test_the_sample_ignores_order_and_batches() -> None:
    points = normal(500, 3)
    whole = updated(TwoNN(100), points, 500).points
    shuffled = points[torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    for order, batch in ((points, 1), (points, 99), (shuffled, 37)):
        assert rows_of(updated(TwoNN(100), order, batch).points) == rows_of(whole)
    assert rows_of(whole) <= rows_of(points)
    assert len(rows_of(whole)) == 100
    other = updated(TwoNN(100, seed=1), points).points
    assert len(rows_of(whole) & rows_of(other)) < 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sample_is_uniform(dtype: torch.dtype) -> None:
    # ordered content is the hard case for a hash: neighbors differ in their last bits only
    line = torch.arange(20_000, dtype=torch.float64)[:, None].expand(-1, 2) / 20_000
    metric = updated(TwoNN(1000, dtype=dtype), line, 4096)
    assert metric.points.dtype == dtype
    assert kstest(metric.points[:, 0].numpy(), "uniform").pvalue > 0.01
    # a hash that only multiplies picks a lattice out of a line, its gaps too regular for chance
    gaps = metric.points[:, 0].double().sort().values.diff()
    assert float(gaps.std() / gaps.mean()) == pytest.approx(1, abs=0.12)
    keys = metric.keys.double() / 2**63
    assert kstest(keys.numpy() / float(keys.max()), "uniform").pvalue > 0.01
    assert float(keys.max()) == pytest.approx(1000 / 20_000, rel=0.15)


def test_negative_zero_is_zero() -> None:
    metric = updated(TwoNN(), torch.tensor([[0.0, 1.0], [-0.0, 1.0]]))
    assert int(metric.keys[0]) == int(metric.keys[1])


def test_sparse_latents_are_kept() -> None:
    latents = SparseLatents(torch.rand(60, 3) + 1, torch.rand(60, 90).topk(3).indices, 90)
    metric = TwoNN()
    metric.update(latents)
    assert rows_of(metric.points) == rows_of(latents.to_dense())


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(3, 4), "columns"),
        (torch.ones(3, 5, dtype=torch.long), "floating"),
        (torch.full((3, 5), math.inf), "finite"),
        (torch.ones(5), "matrix"),
    ],
)
def test_bad_points_are_refused_and_leave_no_trace(points: Tensor, message: str) -> None:
    metric = updated(TwoNN(), normal(40, 5))
    with pytest.raises(ValueError, match=message):
        unwrap(CloudMetric.update)(metric, points)
    assert metric.estimate().n_used == 40


@pytest.mark.parametrize("arguments", [{"max_points": 0}, {"dtype": torch.bfloat16}])
def test_bad_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="`"):
        TwoNN(**arguments)


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.959964), (0.5, 0.674490)])
def test_intervals_over_scales_are_those_of_the_standard_errors(level, quantile) -> None:
    points = normal(120, 3)
    metric = SubsampleInterval(GRIDE(n1=(1, 4)), n_draws=1, level=level)
    metric.update(points)
    found, curve = metric.compute(), gride(points, (1, 4))
    for n1, value, error in zip((1, 4), curve.dimensions, curve.standard_errors, strict=True):
        assert float(found[f"gride/{n1}"]) == pytest.approx(float(value))
        low, high = (float(found[f"gride/{n1}/{end}"]) for end in ("low", "high"))
        assert low == pytest.approx(float(value - quantile * error), rel=1e-5)
        assert high == pytest.approx(float(value + quantile * error), rel=1e-5)
