"""Permutation tests and subsample intervals: exact small cases, level, coverage."""

from inspect import unwrap
from itertools import permutations

import pytest
import torch

from saerepgeo.geometry import (
    centroids,
    class_moments,
    fisher_ratio,
    interval_of_draws,
    permutation_test,
    procrustes_disparity,
    subsample_interval,
)
from saerepgeo.types import Estimate

LEVEL_RATE = {"level": 0.95, "rate": 0.5}


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _gap(points, labels):
    return points[labels == 1].mean() - points[labels == 0].mean()


def test_p_value_is_the_share_of_all_permutations():
    points = torch.tensor([[0.3], [1.0], [0.2], [2.0], [1.5], [0.9]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    everything = [_gap(points, labels[list(order)]) for order in permutations(range(6))]
    observed = _gap(points, labels)
    exact = sum(bool(value >= observed - 1e-12) for value in everything) / len(everything)
    for alternative, expected in [("greater", exact), ("two-sided", 2 * exact)]:
        test = permutation_test(_gap, points, labels, 4000, _generator(), alternative=alternative)
        assert test.p_value == pytest.approx(expected, abs=0.02)
    assert test.statistic == pytest.approx(observed.item())
    assert test.null_mean == pytest.approx(0.0, abs=0.03)
    assert test.null_quantiles[2] == pytest.approx(0.0, abs=0.15)
    assert list(test.null_quantiles) == sorted(test.null_quantiles)
    assert permutation_test(_gap, points, labels, 99, alternative="less").p_value > 0.9


def test_p_value_is_never_zero_and_ties_count():
    points, labels = torch.tensor([[0.0], [0.0], [9.0], [9.0]]), torch.tensor([0, 0, 1, 1])
    test = permutation_test(_gap, points, labels, 500, _generator())
    assert test.p_value == pytest.approx(1 / 6, abs=0.05)
    constant = permutation_test(lambda x, y: 1.0 + 1e-15 * int(y[0]), points, 1 - labels, 50)
    assert constant.p_value == 1.0
    assert (
        permutation_test(_gap, torch.arange(40.0)[:, None], torch.arange(40) // 20, 9).p_value
        == 0.1
    )


def test_p_values_are_uniform_under_the_null():
    labels = torch.arange(20) % 2
    small = 0
    for seed in range(200):
        points = torch.randn(20, 3, generator=_generator(seed))
        test = permutation_test(
            lambda x, y: fisher_ratio(class_moments(x, y, 2)), points, labels, 19, _generator(seed)
        )
        small += test.p_value <= 0.1
    assert 8 <= small <= 34  # binomial(200, .1) lies there with probability > .9999


def test_same_generator_same_result():
    points, labels = torch.randn(10, 2), torch.arange(10) % 2
    tests = [permutation_test(_gap, points, labels, 30, _generator(s)) for s in (5, 5, 6)]
    assert tests[0] == tests[1]
    assert tests[0] != tests[2]
    assert permutation_test(_gap, points, labels, 30) == permutation_test(_gap, points, labels, 30)


def test_points_without_a_label_keep_it():
    labels = torch.tensor([-1, 0, 1, 2, -1, 3, 4])
    seen = set()

    def statistic(points, permuted):
        assert torch.equal(permuted < 0, labels < 0)
        assert torch.equal(permuted.sort().values, labels.sort().values)
        seen.add(tuple(permuted.tolist()))
        return 0.0

    permutation_test(statistic, torch.zeros(7, 1), labels, 50, _generator())
    assert len(seen) > 25


def test_undefined_statistics_are_reported():
    points = torch.randn(6, 2)
    test = permutation_test(
        lambda x, y: fisher_ratio(class_moments(x, y, 1)),
        points,
        torch.zeros(6, dtype=torch.long),
        9,
    )
    assert test.p_value != test.p_value
    assert "two or more classes" in test.reason
    nan = permutation_test(lambda x, y: float("nan"), points, torch.arange(6), 9)
    assert "NaN" in nan.reason

    def defined_for_some(x, y):
        return Estimate.undefined("no") if int(y[0]) == 3 else Estimate(x.double().sum(), 1, 0)

    some = permutation_test(defined_for_some, points, torch.arange(6), 60, _generator())
    assert some.n_draws + some.n_dropped == 60
    assert 0 < some.n_dropped < 30
    only_given = permutation_test(
        lambda x, y: 1.0 if torch.equal(y, torch.arange(6)) else float("nan"),
        points,
        torch.arange(6),
        3,
    )
    assert "every draw" in only_given.reason
    assert (only_given.statistic, only_given.n_draws, only_given.n_dropped) == (1.0, 0, 3)


def test_no_points_and_one_point():
    empty = permutation_test(_gap, torch.zeros(0, 1), torch.zeros(0, dtype=torch.long), 5)
    assert empty.reason is not None
    one = permutation_test(
        lambda x, y: x.sum(), torch.ones(1, 1), torch.zeros(1, dtype=torch.long), 5
    )
    assert one.p_value == 1.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"labels": torch.arange(3)}, "`labels`"),
        ({"n_draws": 0}, "`n_draws`"),
        ({"alternative": "more"}, "`alternative`"),
    ],
)
def test_refuses(kwargs, message):
    arguments = {"points": torch.zeros(4, 1), "labels": torch.arange(4), "n_draws": 9} | kwargs
    with pytest.raises(ValueError, match=message):
        unwrap(permutation_test)(_gap, **arguments)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_interval_of_a_mean_has_the_width_of_the_usual_one(fraction):
    points = torch.randn(400, 1, generator=_generator(), dtype=torch.float64)
    interval = subsample_interval(
        lambda x: x.mean(), points, fraction=fraction, n_draws=4000, generator=_generator()
    )
    standard_error = points.std().item() / 20
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.08)
    assert (interval.high + interval.low) / 2 == pytest.approx(
        points.mean().item(), abs=0.2 * standard_error
    )
    assert (interval.level, interval.n_draws) == (0.95, 4000)


def test_interval_covers_at_its_level():
    n_covered = 0
    for seed in range(150):
        points = torch.randn(100, 1, generator=_generator(seed), dtype=torch.float64).exp()
        interval = subsample_interval(
            lambda x: x.log().std(), points, n_draws=100, level=0.9, generator=_generator(seed)
        )
        n_covered += interval.low <= 1.0 <= interval.high
    assert 118 <= n_covered <= 148  # 135 expected; binomial spread ±3.7


def test_bounds_are_the_reflected_quantiles_of_the_error():
    points = torch.randn(60, 1, generator=_generator(), dtype=torch.float64).exp()

    def statistic(x):
        return x.mean() ** 3

    interval = subsample_interval(statistic, points, fraction=0.25, n_draws=101, level=0.8)
    generator = _generator()
    draws = [statistic(points[torch.randperm(60, generator=generator)[:15]]) for _ in range(101)]
    low, high = torch.quantile(torch.stack(draws), torch.tensor([0.1, 0.9]).double()).tolist()
    whole, scale = statistic(points).item(), (0.25 / 0.75) ** 0.5
    center = float(torch.stack(draws).mean())
    assert interval.low == pytest.approx(whole - scale * (high - center))
    assert interval.high == pytest.approx(whole + scale * (center - low))
    assert high - whole > 1.5 * (whole - low)  # skewed, so that the direction shows


def test_rate_of_convergence():
    points = torch.randn(100, 1, generator=_generator())
    usual, fast = (
        subsample_interval(lambda x: x.mean(), points, rate=rate, fraction=0.25)
        for rate in (0.5, 1.0)
    )
    assert fast.high - fast.low == pytest.approx((usual.high - usual.low) / 2)


def test_aligned_rows_go_along():
    points = torch.arange(20.0)[:, None]
    sizes = []

    def statistic(x, y, z):
        assert torch.equal(x[:, 0], y.float())
        assert torch.equal(z, -y)
        sizes.append(len(y))
        assert len(y.unique()) == len(y)  # without replacement
        return x.mean()

    rows = torch.arange(20)
    subsample_interval(statistic, points, rows, -rows, fraction=0.4, n_draws=10)
    assert sizes == [20] + [8] * 10


def test_no_interval_where_the_statistic_is_undefined():
    def dispersion(x):
        return Estimate.undefined("few") if len(x) < 10 else Estimate(x.double().std(), len(x), 0)

    for points, fraction in [(torch.randn(5, 1), 0.5), (torch.randn(15, 1), 0.5)]:
        interval = subsample_interval(dispersion, points, fraction=fraction)
        assert interval.n_draws == 0
        assert interval.low != interval.low
        assert interval.high != interval.high
    assert subsample_interval(lambda x: x.sum(), torch.zeros(0, 1)).n_draws == 0
    assert subsample_interval(lambda x: x.sum(), torch.zeros(1, 1)).n_draws == 0
    equal = subsample_interval(lambda x: x.mean(), torch.ones(9, 1))
    assert (equal.low, equal.high) == (1.0, 1.0)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"fraction": 0.0},
        {"fraction": 1.0},
        {"level": 1.0},
        {"n_draws": 0},
        {"fraction": float("nan")},
    ],
)
def test_interval_refuses(kwargs):
    with pytest.raises(ValueError, match="`fraction`"):
        subsample_interval(lambda x: x.mean(), torch.zeros(4, 1), **kwargs)
    with pytest.raises(ValueError, match="`aligned`"):
        subsample_interval(lambda x, y: x.mean(), torch.zeros(4, 1), torch.zeros(3))


def test_pairing_can_be_permuted():
    reference = torch.randn(7, 20, generator=_generator())
    test = permutation_test(
        lambda x, order: procrustes_disparity(centroids(class_moments(x, order, 7)), reference),
        reference,
        torch.arange(7),
        99,
        alternative="less",
    )
    assert test.statistic == pytest.approx(0.0, abs=1e-9)
    assert test.p_value == 0.01


def test_the_defaults_are_those_of_the_docstring():
    points, labels = torch.randn(30, 2, generator=_generator()), torch.arange(30) % 2
    test = permutation_test(_gap, points, labels)
    assert test.n_draws == 999
    assert test == permutation_test(_gap, points, labels, 999, _generator(), alternative="greater")
    interval = subsample_interval(lambda x: x.mean(), points)
    said = {"fraction": 0.5, "n_draws": 200, "level": 0.95, "rate": 0.5}
    assert interval == subsample_interval(
        lambda x: x.mean(), points, **said, generator=_generator()
    )
    draws = [float(d) for d in range(9)]
    assert interval_of_draws(4.0, draws, 0.5) == interval_of_draws(4.0, draws, 0.5, **LEVEL_RATE)


def test_an_interval_from_fewer_than_two_draws_is_none():
    for draws, n in (([], 0), ([3.0], 0), ([3.0, 4.0], 2)):
        interval = interval_of_draws(3.0, draws, 0.5)
        assert (interval.low != interval.low) == (n == 0)
        assert interval.n_draws == n
    for kwargs in ({"fraction": 1.0}, {"fraction": 0.5, "level": 1.0}, {"fraction": -0.1}):
        with pytest.raises(ValueError, match="`fraction`"):
            interval_of_draws(1.0, [1.0, 2.0], **kwargs)
