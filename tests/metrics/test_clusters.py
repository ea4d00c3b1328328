"""Cluster metric: the contract of every metric and the count of the whole cloud."""

import math

import pytest
import torch
from torch import Tensor

from saerepgeo.geometry import cluster
from saerepgeo.metrics import ClusterCount, NoiseShare
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
