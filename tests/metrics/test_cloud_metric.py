"""The sample that cloud metrics share: compute groups, whole clouds, one search for neighbors."""

import gc

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from saerepgeo.geometry.clouds import neighbors
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import (
    AverageGeodesicDistance,
    Betti0,
    ClusterCount,
    LinearCKA,
    MinimumSpanningTreeWeight,
    NoiseShare,
    NumericalRank,
    Silhouette,
    StableRank,
    TwoNN,
    UnmatchedMass,
    cloud_metric,
)
from saerepgeo.metrics.cloud_metric import PairMetric


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_a_collection_is_one_group_with_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[int] = []
    search = neighbors._search
    counted = lambda cloud, k: searches.append(k) or search(cloud, k)  # noqa: E731
    monkeypatch.setattr(neighbors, "_search", counted)
    collection = MetricCollection([TwoNN(), AverageGeodesicDistance(7, 10_000), Betti0()])
    for part in normal(120, 4).split(50):
        collection.update(part)
    assert len(collection.compute_groups) == 1
    collection.compute()
    assert searches == [10]


@pytest.mark.parametrize("n_points", [0, 20])
@pytest.mark.parametrize(
    "makers",
    [
        (lambda: TwoNN(100_000), lambda: TwoNN(100_001)),
        (lambda: TwoNN(seed=10**6), lambda: TwoNN(seed=10**6 + 1)),
        (TwoNN, lambda: TwoNN(dtype=torch.float64)),
        (StableRank, lambda: NumericalRank(sketch_size=100_001)),
        (StableRank, lambda: NumericalRank(center=True)),
    ],
    ids=["max_points", "seed", "dtype", "sketch_size", "center"],
)
def test_other_settings_never_share_a_group(makers, n_points: int) -> None:
    collection = MetricCollection({str(i): make() for i, make in enumerate(makers)})
    collection.update(normal(n_points, 3))
    assert len(collection.compute_groups) == 2


def test_a_cloud_is_forgotten_with_its_metric() -> None:
    gc.collect()
    before = len(cloud_metric._CLOUDS)
    metric = TwoNN()
    metric.update(normal(50, 3))
    metric.compute()
    assert len(cloud_metric._CLOUDS) == before + 1
    del metric
    gc.collect()
    assert len(cloud_metric._CLOUDS) == before


def test_a_labeled_cloud_is_taken_whole_and_alone() -> None:
    cloud = LabeledCloud(normal(60, 3), name="mine")
    metric = TwoNN(40)
    metric(cloud)
    assert metric.cloud is cloud
    assert metric.estimate().n_used == 60
    for more in (cloud, normal(5, 3)):
        with pytest.raises(ValueError, match="only update"):
            metric.update(more)
    metric.reset()
    metric.update(normal(50, 2))
    assert metric.estimate().n_used == 40


def test_pairs_are_both_clouds_or_neither() -> None:
    cloud = LabeledCloud(normal(20, 3))
    for pair in ((cloud, normal(20, 3)), (normal(20, 3), cloud)):
        with pytest.raises(ValueError, match="or neither"):
            LinearCKA().update(*pair)
    with pytest.raises(ValueError, match="paired rows"):
        LinearCKA().update(cloud, LabeledCloud(normal(19, 3)))


@pytest.mark.parametrize(
    ("make_metric", "most"),
    [
        (TwoNN, 10_000),
        (Betti0, 10_000),
        (ClusterCount, 10_000),
        (MinimumSpanningTreeWeight, 10_000),
        (Silhouette, 5_000),
        (LinearCKA, 5_000),
        (AverageGeodesicDistance, 2_000),
    ],
)
def test_the_sample_holds_as_many_points_as_is_said(make_metric, most: int) -> None:
    metric = make_metric()
    points = torch.arange(2.0 * most)[:, None]
    metric.update(points, points) if isinstance(metric, PairMetric) else metric.update(points)
    assert len(metric.points) == metric.n_left_out == most


@pytest.mark.parametrize(
    "metric", [ClusterCount, NoiseShare, NumericalRank, MinimumSpanningTreeWeight, Betti0]
)
def test_a_plot_starts_at_zero(metric) -> None:
    assert metric().plot_lower_bound == 0
    assert NoiseShare().plot_upper_bound == 1


@pytest.mark.parametrize(
    ("given", "own", "used"), [(None, "own", "own"), ("given", "own", "given")]
)
def test_states_are_joined_over_the_group_given_else_the_metrics_own(given, own, used) -> None:
    metric = TwoNN(process_group=own)
    groups = []

    def gather(state: Tensor, group: str) -> list[Tensor]:
        groups.append(group)
        return [state]

    metric._sync_dist(gather, given)
    assert set(groups) == {used}


def test_intervals_are_cut_off_where_figures_end() -> None:
    ends = {NoiseShare: (0, 1), UnmatchedMass: (0, 1), Silhouette: (-1, 1)}
    for metric, bounds in ends.items():
        assert metric().bounds == bounds
    assert LinearCKA().bounds == (-torch.inf, 1)
