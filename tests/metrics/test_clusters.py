"""Cluster metric: the contract of every metric and the count of the whole cloud."""

import math

import pytest
import torch
from torch import Tensor

from saerepgeo.geometry import cluster
from saerepgeo.metrics import (
    ClusterCount,
    MinimumSpanningTreeWeight,
    NoiseShare,
    TwoNNPerCluster,
)
from tests.metrics.harness import ProcessPair, check_metric


def blobs(n_clusters: int = 3, size: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centers = 10 * torch.arange(n_clusters).repeat_interleave(size)[:, None]
    points = centers + torch.randn(n_clusters * size, 2, generator=generator)
    order = torch.randperm(len(points), generator=generator)
    return points[order].bfloat16().float()


@pytest.mark.parametrize("make_metric", [ClusterCount, NoiseShare])
@pytest.mark.parametrize("max_points", [5000, 60])
def test_contract(make_metric, max_points: int, process_pair: ProcessPair) -> None:
    updates = [(part,) for part in blobs().split([40, 5, 25, 20])]
    make = lambda: make_metric(max_points=max_points)  # noqa: E731
    check_metric(make, updates, process_pair, low_precision_rtol=1e-9)


def test_count_and_noise_are_those_of_the_points() -> None:
    points = blobs(4)
    metric, noise = ClusterCount(8), NoiseShare(8)
    metric.update(points)
    noise.update(points)
    labels = cluster(points, 8)
    assert float(metric.compute()) == int(labels.max()) + 1 == 4
    assert float(noise.compute()) == pytest.approx(float((labels < 0).double().mean()))


@pytest.mark.parametrize(("size", "expected"), [(9, 0), (10, 3), (11, 3)])
def test_ten_points_are_a_cluster_by_default(size: int, expected: int) -> None:
    metric = ClusterCount()
    metric.update(10 * blobs(3, size))
    assert float(metric.compute()) == expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [(torch.zeros(0, 2), math.nan), (torch.ones(50, 2), 0.0), (torch.zeros(1, 2), 0.0)],
    ids=["empty", "equal", "one"],
)
def test_degenerate_clouds(points: Tensor, expected: float) -> None:
    metric = ClusterCount()
    metric.update(points)
    assert float(metric.compute()) == pytest.approx(expected, nan_ok=True)
    assert (metric.reason is not None) == math.isnan(expected)


def test_no_clusters_have_no_tree() -> None:
    metric = MinimumSpanningTreeWeight("clusters")
    metric.update(torch.linspace(0, 1, 5)[:, None])
    assert str(metric.estimate().reason).startswith("0 clusters")
    assert metric.estimate().n_used == 0


def test_clusters_of_two_points_have_no_dimension() -> None:
    pairs = torch.tensor([[0.0], [0.1], [50.0], [50.2], [90.0], [90.3], [200.0], [200.4]])
    metric = TwoNNPerCluster(min_cluster_size=2)
    metric.update(pairs)
    found = metric.estimate()
    assert "no cluster has a dimension" in str(found.reason)
    assert found.n_used == 0
    assert found.n_dropped > 1


@pytest.mark.parametrize("make_metric", [ClusterCount, NoiseShare])
def test_every_point_counts(make_metric) -> None:
    metric = make_metric(8)
    metric.update(blobs())
    assert (metric.estimate().n_used, metric.estimate().n_dropped) == (90, 0)
