"""Rank metrics: the contract of every metric, figures of the whole matrix, bounds of the sketch."""

import math
from inspect import unwrap

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from saerepgeo.geometry import (
    effective_rank,
    numerical_rank,
    participation_ratio,
    singular_values,
    stable_rank,
)
from saerepgeo.metrics import EffectiveRank, NumericalRank, ParticipationRatio, StableRank
from saerepgeo.metrics.rank import SpectrumMetric
from saerepgeo.types import SparseLatents
from tests.metrics.harness import ProcessPair, check_metric

METRICS = [NumericalRank, EffectiveRank, StableRank, ParticipationRatio]
SOFT = {
    EffectiveRank: effective_rank,
    StableRank: stable_rank,
    ParticipationRatio: participation_ratio,
}


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def low_rank(n: int, dim: int, rank: int) -> Tensor:
    return normal(n, rank) @ normal(rank, dim, 1)


def updated(metric: SpectrumMetric, points: Tensor, batch: int = 64) -> SpectrumMetric:
    for part in points.split(batch):
        metric.update(part)
    return metric


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_contract(metric: type[SpectrumMetric], center: bool, process_pair: ProcessPair) -> None:
    points = low_rank(90, 12, 5).float() + 3
    updates = [(part,) for part in points.split([41, 7, 30, 12])]
    # a coarser dtype is another precision of the data, hence another rank
    tolerance = None if metric is NumericalRank else 0.05
    check_metric(lambda: metric(center=center), updates, process_pair, low_precision_rtol=tolerance)


@pytest.mark.parametrize("size", [None, 4, 200])
def test_rank_is_that_of_the_whole_matrix(size: int | None) -> None:
    points = low_rank(300, 60, 4)
    metric = updated(NumericalRank(sketch_size=size), points)
    assert float(metric.compute()) == np.linalg.matrix_rank(points.numpy()) == 4
    expected = numerical_rank(singular_values(points), (300, 60))
    assert metric.threshold == pytest.approx(expected.threshold, rel=1e-10)
    assert metric.estimate().n_used == 300


@pytest.mark.parametrize("metric", SOFT)
def test_soft_ranks_are_those_of_the_whole_matrix(metric: type[SpectrumMetric]) -> None:
    points = normal(300, 20)
    expected = float(SOFT[metric](singular_values(points)))
    assert float(updated(metric(), points).compute()) == pytest.approx(expected, rel=1e-12)


def test_centered_spectrum_is_that_of_the_covariance() -> None:
    points = normal(200, 6) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1, 0.01]) + 1e4
    metric = updated(ParticipationRatio(center=True), points)
    # the default solver of the oracle takes a difference of moments, which loses half the digits
    variances = PCA(svd_solver="full").fit(points.numpy()).explained_variance_
    np.testing.assert_allclose(metric.spectrum.square() / 199, variances, rtol=1e-7)
    expected = variances.sum() ** 2 / (variances**2).sum()
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-7)
    assert metric.n_columns == 6


@pytest.mark.parametrize("center", [False, True])
def test_precision_of_the_data_decides_the_eps_rank(center: bool) -> None:
    spectrum = torch.tensor([1.0, 1e-9])
    points = normal(50, 2) * spectrum
    assert float(updated(NumericalRank(center=center), points).compute()) == 2
    assert float(updated(NumericalRank(center=center), points.float()).compute()) == 1
    assert float(updated(NumericalRank(dtype=torch.float32), points).compute()) == 1
    mixed = updated(updated(NumericalRank(), points), points.bfloat16())
    assert float(mixed.compute()) == 1


def test_planted_rank_under_noise() -> None:
    points = low_rank(400, 100, 10) + 0.1 * normal(400, 100, 5)
    assert float(updated(NumericalRank("gavish-donoho"), points).compute()) == 10
    assert float(updated(NumericalRank("gavish-donoho", noise=0.1), points).compute()) == 10
    assert float(updated(NumericalRank("eps"), points).compute()) == 100


def test_an_inexact_sketch_gives_bounds_and_says_so(process_pair: ProcessPair) -> None:
    points = normal(400, 40) * 0.85 ** torch.arange(40)
    exact = singular_values(points)[:10].square()
    metric = updated(NumericalRank(sketch_size=10), points)
    assert float(metric.shrinkage) > 0
    found = metric.spectrum[:10].square()
    assert bool((found <= exact + 1e-9).all())
    assert bool((exact <= found + metric.shrinkage + 1e-9).all())
    assert float(metric.compute()) <= 20 < 40
    halves = [updated(NumericalRank(sketch_size=10), half) for half in points.split(200)]
    least = float(halves[0].shrinkage + halves[1].shrinkage)
    halves[0].merge_state(halves[1])
    assert float(halves[0].shrinkage) >= least > float(halves[1].shrinkage)
    merged = halves[0].spectrum[:10].square()
    assert bool((merged <= exact + 1e-9).all())
    assert bool((exact <= merged + halves[0].shrinkage + 1e-9).all())
    whole = updated(NumericalRank(sketch_size=10), points, 400)
    assert torch.equal(whole.spectrum, metric.spectrum)
    undefined = updated(NumericalRank("gavish-donoho", sketch_size=10), points)
    assert math.isnan(undefined.compute())
    assert "median" in str(undefined.reason)
    # the stable rank leans on the leading directions: within the bound on two processes, too
    shares = [[(points[:150],)], [(points[150:],)]]
    for result in process_pair.compute(StableRank(sketch_size=10), shares):
        assert float(result) == pytest.approx(float(stable_rank(singular_values(points))), rel=0.5)


def test_memory_does_not_grow() -> None:
    metric = StableRank(sketch_size=8)
    for seed in range(20):
        metric.update(normal(100, 30, seed))
        assert metric.rows.untyped_storage().nbytes() <= 8 * 30 * 16


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_and_zeros(metric: type[SpectrumMetric]) -> None:
    empty = metric()
    empty.update(torch.zeros(0, 3))
    assert math.isnan(empty.compute())
    assert empty.reason == "no points"
    zeros = updated(metric(), torch.zeros(10, 3))
    if metric is NumericalRank:
        assert float(zeros.compute()) == 0
    else:
        assert math.isnan(zeros.compute())
        assert "positive" in str(zeros.reason)


@pytest.mark.parametrize("center", [False, True])
def test_one_point_and_equal_points(center: bool) -> None:
    for n in (1, 70):
        metric = updated(NumericalRank(center=center), torch.full((n, 5), 0.1))
        assert float(metric.compute()) == (0 if center else 1)


def test_sparse_latents_are_welcome() -> None:
    latents = SparseLatents(torch.rand(50, 3) + 1, torch.randint(0, 40, (50, 3)), 40)
    dense = updated(StableRank(), latents.to_dense())
    sparse = StableRank()
    sparse.update(latents)
    assert torch.equal(sparse.compute(), dense.compute())


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(3, 4), "columns"),
        (torch.ones(3, 5, dtype=torch.long), "floating"),
        (torch.full((3, 5), math.nan), "finite"),
        (torch.ones(5), "matrix"),
    ],
)
def test_bad_points_are_refused_and_leave_no_trace(points: Tensor, message: str) -> None:
    metric = updated(NumericalRank(), normal(20, 5))
    with pytest.raises(ValueError, match=message):
        unwrap(SpectrumMetric.update)(metric, points)
    assert float(metric.compute()) == 5
    assert metric.estimate().n_used == 20


@pytest.mark.parametrize(
    "arguments",
    [{"tolerance": -1.0}, {"tolerance": "gavish-donoho", "noise": -1.0}, {"sketch_size": 0}],
)
def test_bad_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="`"):
        NumericalRank(**arguments)
