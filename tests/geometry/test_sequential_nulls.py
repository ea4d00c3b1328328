"""Sequential permutation p-values: the rule by hand, and its level by simulation."""

import math

import pytest
import torch

from saerepgeo.geometry.nulls import null_test
from saerepgeo.geometry.sequential_nulls import n_needed, sequential_test


def by_hand(observed: float, draws: list[float], n_extreme: int) -> float:
    """Besag & Clifford's rule, one-sided, draw by draw."""
    n_seen = 0
    for number, draw in enumerate(draws, 1):
        n_seen += draw >= observed
        if n_seen == n_extreme:
            return n_extreme / number
    return (1 + n_seen) / (1 + len(draws))


def test_the_rule_is_that_of_besag_and_clifford_and_later_draws_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    for observed in (-1.0, 0.0, 1.0, 2.0, 9.0):
        draws = torch.randn(60, generator=generator, dtype=torch.float64).tolist()
        test = sequential_test(observed, draws, "greater", 4)
        assert test.p_value == pytest.approx(by_hand(observed, draws, 4))
        needed = n_needed(observed, draws, "greater", 4)
        assert test.n_draws == (needed or 60)
        if needed is not None:
            assert sequential_test(observed, draws[:needed], "greater", 4) == test
            assert n_needed(observed, draws[: needed - 1], "greater", 4) is None
        mirrored = sequential_test(-observed, [-draw for draw in draws], "less", 4)
        assert mirrored.p_value == test.p_value


def test_two_sides_are_twice_the_smaller_each_with_its_own_end() -> None:
    draws = [1.0, -1.0, 2.0, 3.0, -2.0, 4.0]
    test = sequential_test(0.0, draws, "two-sided", 2)  # above: 2 of 3; below: 2 of 5
    assert (test.p_value, test.n_draws) == (pytest.approx(2 * 2 / 5), 5)
    assert n_needed(2.5, draws, "two-sided", 3) is None
    below, above = 3 / 3, (1 + 2) / (1 + 6)
    assert sequential_test(2.5, [1.0, -1.0, 2.0, 3.0, -2.0, 4.0], "two-sided", 3).p_value == (
        pytest.approx(2 * min(below, above))
    )


def test_p_values_keep_their_level() -> None:
    generator = torch.Generator().manual_seed(1)
    values = []
    for _ in range(2000):
        draws = torch.rand(40, generator=generator, dtype=torch.float64).tolist()
        values.append(sequential_test(draws[0], draws[1:], "two-sided", 5).p_value)
    for level in (0.05, 0.1, 0.3, 0.6):
        share = sum(value <= level for value in values) / len(values)
        assert share <= level + 3 * math.sqrt(level * (1 - level) / len(values))
        assert share >= 0.5 * level - 0.03


def test_undefined_values_and_draws() -> None:
    nan = math.nan
    assert n_needed(nan, [], "greater", 2) == 0
    assert sequential_test(nan, [], "greater", 2).reason is not None
    test = sequential_test(0.0, [nan, 1.0, nan, 1.0], "greater", 2)
    assert (test.p_value, test.n_draws, test.n_dropped) == (1.0, 2, 2)
    assert math.isnan(sequential_test(0.0, [nan, nan], "greater", 2).p_value)
    few = [3.0, 1.0]
    assert sequential_test(2.0, few, "greater", 9) == null_test(2.0, few, "greater")
    with pytest.raises(ValueError, match="`n_extreme` must be at least 1, got 0"):
        sequential_test(0.0, [1.0], "greater", 0)
