"""Graph metrics: the contract of every metric and the figures of the whole cloud."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor

from saerepgeo.geometry import average_geodesic_distance, betti_0, mst_weight
from saerepgeo.metrics import (
    AverageGeodesicDistance,
    Betti0,
    CloudMetric,
    MinimumSpanningTreeWeight,
)
from tests.metrics.harness import ProcessPair, check_metric

MAKERS = {
    "mst": lambda n=10_000: MinimumSpanningTreeWeight("points", max_points=n),
    "betti": lambda n=10_000: Betti0(0.8, max_points=n),
    "agd": lambda n=10_000: AverageGeodesicDistance(5, n),
}


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("arguments", [(), (40,)], ids=["all", "sample"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_contract(make, arguments, process_pair: ProcessPair) -> None:
    points = normal(90, 3).bfloat16().float()  # so that bfloat16 input is the same input
    updates = [(part,) for part in points.split([30, 5, 25, 30])]
    check_metric(lambda: make(*arguments), updates, process_pair, low_precision_rtol=1e-9)


def test_figures_are_those_of_the_points() -> None:
    points = torch.cat([normal(50, 3), normal(30, 3, 1) + 50])
    mst, betti, agd = MinimumSpanningTreeWeight("points"), Betti0(0.9), AverageGeodesicDistance(4)
    for metric in (mst, betti, agd):
        metric.update(points)
    assert float(mst.compute()) == pytest.approx(float(mst_weight(points)), rel=1e-12)
    assert float(betti.compute()) == float(betti_0(points, 0.9))
    expected = average_geodesic_distance(points, 4)
    assert float(agd.compute()) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_sample_counts_what_it_leaves_out(make) -> None:
    metric = make(40)
    metric.update(normal(100, 3))
    assert (metric.estimate().n_used, metric.estimate().n_dropped) == (40, 60)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (torch.zeros(0, 3), (math.nan, math.nan, math.nan)),
        (torch.zeros(1, 3), (0.0, 1.0, math.nan)),
        (torch.ones(20, 3), (0.0, 1.0, 0.0)),
    ],
    ids=["empty", "one", "equal"],
)
def test_degenerate_clouds(points: Tensor, expected: tuple[float, ...]) -> None:
    for make, value in zip(MAKERS.values(), expected, strict=True):
        metric = make()
        metric.update(points)
        assert float(metric.compute()) == pytest.approx(value, nan_ok=True)
        assert (metric.reason is not None) == math.isnan(value)


def test_plot_shows_one_value_and_a_curve() -> None:
    metric = MinimumSpanningTreeWeight("points")
    values = [metric(normal(20, 2, seed)) for seed in range(3)]
    for shown, n_points in ((None, 1), (values, 3)):
        figure, axes = metric.plot(shown)
        assert len(axes.lines[0].get_xdata()) == n_points
        plt.close(figure)


@pytest.mark.parametrize(
    "make", [lambda: Betti0(-1.0), lambda: Betti0(math.nan), lambda: AverageGeodesicDistance(0)]
)
def test_bad_arguments_are_refused(make) -> None:
    with pytest.raises(ValueError, match="`"):
        make()


def test_reset_forgets_the_points() -> None:
    metric: CloudMetric = MinimumSpanningTreeWeight("points")
    metric.update(normal(20, 2))
    metric.reset()
    metric.update(normal(20, 3))
    assert metric.estimate().n_used == 20
