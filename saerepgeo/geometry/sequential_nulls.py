"""Null tests that stop early: no more draws where the answer is clear."""

import math
from collections.abc import Sequence
from itertools import accumulate

from saerepgeo.geometry.nulls import Alternative, PermutationTest, null_test


def sequential_test(
    observed: float,
    draws: Sequence[float],
    alternative: Alternative = "greater",
    n_extreme: int = 10,
) -> PermutationTest:
    """Return the test of a value beside draws of which no more are made once it is decided.

    The rule: draw until h = `n_extreme` draws are at least as extreme as the value observed, or
    until a fixed number n of draws is there. If the h-th extreme draw is draw l, p = h/l; if n
    draws hold only g < h, p = (1 + g)/(1 + n). Under the null P(p ≤ a) ≤ a for every a, as for a
    fixed number of draws. "two-sided" takes twice the smaller p of the two sides, at most 1, each
    side with its own l, and is decided when both are.

    `draws` are those made so far, in their order. What comes after the last one that is needed is
    not looked at: how many are made at once changes nothing. NaN draws leave the null and count in
    `n_dropped`. A value that is NaN needs no draws: p is NaN. ValueError for n_extreme < 1. Source:
    Besag & Clifford (1991), *Sequential Monte Carlo p-values*.

    >>> sequential_test(0.0, [1.0, -1.0, 2.0, 5.0, 7.0], n_extreme=2).p_value  # 2 of 3
    0.6666666666666666
    >>> sequential_test(6.0, [1.0, -1.0, 2.0, 5.0, 7.0], n_extreme=2).p_value  # (1 + 1)/(1 + 5)
    0.3333333333333333
    """
    ends = [_end(observed, draws, side, n_extreme) for side in _sides(alternative)]
    needed = n_needed(observed, draws, alternative, n_extreme)
    used = draws if needed is None else draws[:needed]
    test = null_test(observed, used, alternative)
    if not math.isfinite(test.p_value):
        return test
    found = [
        n_extreme / _n_defined(draws[:end]) if end is not None else one_sided
        for end, side in zip(ends, _sides(alternative), strict=True)
        for one_sided in [null_test(observed, used, side).p_value]
    ]
    p_value = min(1.0, 2 * min(found)) if alternative == "two-sided" else found[0]
    return test._replace(p_value=p_value)


def n_needed(
    observed: float,
    draws: Sequence[float],
    alternative: Alternative = "greater",
    n_extreme: int = 10,
) -> int | None:
    """Return how many of the draws decide a `sequential_test`; None where more are needed.

    >>> n_needed(0.0, [1.0, -1.0, 2.0, 5.0], n_extreme=2), n_needed(9.0, [1.0], n_extreme=2)
    (3, None)
    """
    if n_extreme < 1:
        raise ValueError(f"`n_extreme` must be at least 1, got {n_extreme}")
    if not math.isfinite(observed):
        return 0
    ends = [_end(observed, draws, side, n_extreme) for side in _sides(alternative)]
    known = [end for end in ends if end is not None]
    return max(known) if len(known) == len(ends) else None


def _sides(alternative: Alternative) -> tuple[Alternative, ...]:
    return ("greater", "less") if alternative == "two-sided" else (alternative,)


def _end(observed: float, draws: Sequence[float], side: Alternative, n_extreme: int) -> int | None:
    """Return after how many draws the last of the extreme ones that are asked for is there."""
    counts = accumulate(_is_extreme(observed, draw, side) for draw in draws)
    return next((number for number, n in enumerate(counts, 1) if n == n_extreme), None)


def _is_extreme(observed: float, draw: float, side: Alternative) -> bool:
    """Return whether a draw is as large, or as small; equal up to rounding counts."""
    slack = 1e-12 * max(abs(observed), abs(draw))
    if not math.isfinite(draw):
        return False
    return draw >= observed - slack if side == "greater" else draw <= observed + slack


def _n_defined(draws: Sequence[float]) -> int:
    return sum(map(math.isfinite, draws))
