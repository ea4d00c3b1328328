"""Intervals of a mean, of values and of groups, and correlations: SciPy's, and coverage."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from saerepgeo.cases.statistics import correlations, spearman, student_interval


def test_the_interval_is_students():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    low, high = stats.ttest_1samp(values.numpy(), 0).confidence_interval(0.9)
    assert student_interval(values, 0.9)[:2] == pytest.approx((low, high), rel=1e-6)
    assert math.isnan(student_interval(values[:1]).low)


def test_the_interval_over_items_covers():
    """95 % intervals of a mean whose points share an error by item: 93 to 97 % of 2,000 cover."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 12
    n_covered = n_naive = 0
    for _ in range(2000):
        x = torch.randn(12, generator=generator)[labels] + torch.randn(60, generator=generator)
        interval = student_interval(x, groups=labels)
        n_covered += interval.low <= 0 <= interval.high
        n_naive += abs(float(x.mean())) <= 1.96 * float(x.std()) / 60**0.5
    assert 0.93 < n_covered / 2000 < 0.97
    assert n_naive / 2000 < 0.8  # what points taken as independent would give


def test_correlations_are_scipys_and_nan_where_there_is_nothing_to_correlate():
    x, y = [1.0, 2.0, 4.0, 3.0], [2.0, 1.0, 9.0, 8.0]
    found = correlations(x, y)
    assert found[:2] == pytest.approx(tuple(stats.pearsonr(x, y)))
    assert found[2] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert all(math.isnan(value) for value in correlations(x[:2], y[:2]))


def test_spearman_is_scipys_and_its_interval_covers() -> None:
    generator = np.random.default_rng(0)
    n_covered = 0
    for seed in range(60):
        pairs = generator.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 40)
        x, y = np.round(pairs, 1).T.tolist()  # with ties
        estimate, interval = spearman(x, y, seed=seed, n_draws=400)
        assert float(estimate) == pytest.approx(stats.spearmanr(x, y).statistic)
        truth = 6 / math.pi * math.asin(0.6 / 2)
        n_covered += interval.low <= truth <= interval.high
    assert n_covered >= 51
    estimate, interval = spearman([1.0, 2.0, 3.0, math.nan], [1.0, 2.0, 3.0, 4.0])
    assert (estimate.reason, estimate.n_used, estimate.n_dropped) == ("3 pairs, 5 needed", 3, 1)
    assert (
        spearman([1.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])[0].reason == "equal values on one side"
    )
