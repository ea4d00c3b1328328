"""Intervals of a mean, of values and of groups, and correlations: SciPy's, and coverage."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from saerepgeo.cases.statistics import (
    correlations,
    share_between_groups,
    spearman,
    student_interval,
)


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


def test_a_rank_correlation_with_a_third_given_is_that_of_what_it_leaves():
    generator = np.random.default_rng(0)
    z = np.round(generator.normal(size=30), 1)
    x, y = z + generator.normal(size=30), generator.normal(size=30) - z
    ranks = [stats.rankdata(column) for column in (x, y, z)]
    design = np.column_stack([ranks[2], np.ones(30)])
    left = [own - design @ np.linalg.lstsq(design, own, rcond=None)[0] for own in ranks[:2]]
    estimate, interval = spearman(x.tolist(), y.tolist(), given=z.tolist())
    assert float(estimate) == pytest.approx(stats.pearsonr(*left).statistic)
    assert interval.low < float(estimate) < interval.high
    assert spearman(z.tolist(), y.tolist(), given=(z**3).tolist())[0].reason == (
        "the order of one side is that of what is given"
    )
    assert spearman(x[:5].tolist(), y[:5].tolist(), given=z[:5].tolist())[0].reason == (
        "5 pairs, 6 needed"
    )
    assert (
        spearman(x.tolist(), y.tolist(), given=[1.0] * 30)[0].reason == "equal values on one side"
    )


def test_the_interval_of_a_partial_rank_correlation_covers():
    generator = np.random.default_rng(2)
    matrix = np.array([[1, 0.7, 0.5], [0.7, 1, 0.6], [0.5, 0.6, 1]])
    xy, xz, yz = (6 / math.pi * math.asin(matrix[i, j] / 2) for i, j in ((0, 1), (0, 2), (1, 2)))
    truth = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    n_covered = 0
    for seed in range(60):
        x, y, z = generator.multivariate_normal([0] * 3, matrix, 40).T.tolist()
        _, interval = spearman(x, y, given=z, seed=seed, n_draws=400)
        n_covered += interval.low <= truth <= interval.high
    assert n_covered >= 51


def test_an_interval_over_groups_covers_where_repeats_are_alike():
    """Ten repeats each of 16 methods: pairs taken as independent give far too narrow intervals."""
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(16), 10)
    truth, n_covered, n_naive = 0.0, 0, 0
    for seed in range(60):
        x, y = generator.normal(size=(2, 16))[:, groups] + 0.2 * generator.normal(size=(2, 160))
        pairs = x.tolist(), y.tolist()
        _, interval = spearman(*pairs, groups=groups.tolist(), seed=seed, n_draws=300)
        _, naive = spearman(*pairs, seed=seed, n_draws=300)
        n_covered += interval.low <= truth <= interval.high
        n_naive += naive.low <= truth <= naive.high
    assert n_covered >= 51
    assert n_naive <= 35
    few = [float(number) for number in range(8)]
    estimate, interval = spearman(few, few, groups=[0, 0, 1, 1, 2, 2, 3, 3])
    assert (estimate.reason, estimate.n_used) == ("4 groups, 5 needed", 8)
    alone = spearman(few, few[::-1], groups=range(8)), spearman(few, few[::-1])
    assert str(alone[0]) == str(alone[1])


def test_the_share_between_groups_is_that_of_the_analysis_of_variance():
    x = [[3.1, 2.9, 3.4], [5.0, 4.1], [1.0, 2.2, 1.9, 1.4], [3.3]]
    f = float(stats.f_oneway(*x).statistic)
    sizes, n = [len(own) for own in x], 10
    typical = (n - sum(size**2 for size in sizes) / n) / 3
    groups = [name for name, own in zip("abcd", x, strict=True) for _ in own]
    values = [value for own in x for value in own]
    estimate, interval, test = share_between_groups([*values, math.nan], [*groups, "d"])
    assert float(estimate) == pytest.approx((f - 1) / (f - 1 + typical))
    assert (estimate.n_used, estimate.n_dropped) == (10, 1)
    assert interval.low < float(estimate) < interval.high
    assert test.p_value < 0.02
    pair = [1.0, 1.2, 4.0, 4.1, 2.0, 2.3]  # Shrout & Fleiss' F interval, groups of one size
    estimate, interval, _ = share_between_groups(pair, [0, 0, 1, 1, 2, 2], level=0.9)
    f = float(stats.f_oneway(pair[:2], pair[2:4], pair[4:]).statistic)
    low, high = f / stats.f.isf(0.05, 2, 3), f * stats.f.isf(0.05, 3, 2)
    assert interval[:2] == pytest.approx(((low - 1) / (low + 1), (high - 1) / (high + 1)))


def test_a_share_between_groups_is_undefined_without_two_of_repeats():
    reason = "groups of two or more: 1, 2 needed"
    assert share_between_groups([1.0, 2.0, 3.0], [0, 0, 1])[0].reason == reason
    assert share_between_groups([1.0, 2.0, math.nan, 3.0], [0, 0, 1, 1])[0].reason == reason
    assert share_between_groups([0.1] * 4, [0, 0, 1, 1])[0].reason == "equal values"
    exact, interval, test = share_between_groups([0.1, 0.1, 0.7, 0.7], [0, 0, 1, 1])
    assert (float(exact), interval.low, interval.high) == (1.0, 1.0, 1.0)
    assert 0.2 < test.p_value < 0.5  # one of three ways to pair four


def test_the_interval_of_a_share_between_groups_covers_and_p_is_uniform_by_chance():
    generator = np.random.default_rng(4)
    groups = np.repeat(np.arange(8), 3)
    n_covered, ps = 0, []
    for seed in range(150):
        noise, methods = generator.normal(size=24), generator.normal(size=8)[groups]
        draws = {"groups": groups.tolist(), "seed": seed, "n_draws": 99}
        _, interval, _ = share_between_groups((2 * methods + noise).tolist(), **draws)
        n_covered += interval.low <= 4 / 5 <= interval.high
        ps.append(share_between_groups(noise.tolist(), **draws)[2].p_value)
    assert 135 <= n_covered <= 149
    assert stats.kstest(ps, "uniform").pvalue > 0.01
