"""What the same statistics give by chance: permutations and subsamples."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Points
from saerepgeo.geometry.clouds.conversion import check_labels_of, count_points, take_points
from saerepgeo.types import Estimate, Int, Interval

Alternative = Literal["greater", "less", "two-sided"]
QUANTILE_LEVELS = (0.025, 0.05, 0.5, 0.95, 0.975)


class PermutationTest(NamedTuple):
    """A statistic beside its null; `p_value` is NaN exactly where `reason` says why."""

    statistic: float
    p_value: float
    n_draws: int
    """Draws of the null in which the statistic was defined; `n_dropped` counts the others."""
    n_dropped: int
    null_mean: float
    null_quantiles: tuple[float, ...]
    """At `QUANTILE_LEVELS`."""
    reason: str | None = None
    draws: tuple[float, ...] = ()
    """What the null gave, draw by draw."""


def permutation_test(
    statistic: Callable[[Any, Tensor], Estimate | Tensor | float],
    points: Points,
    labels: Int[Tensor, "_"],
    n_draws: int = 999,
    generator: torch.Generator | None = None,
    *,
    alternative: Alternative = "greater",
) -> PermutationTest:
    """Return how often labels dealt out at random give a statistic as large as the labels given.

    p = (1 + #{draws: s(points, permuted) ≥ s(points, labels)})/(1 + n_draws): never 0, and exact
    for exchangeable labels. Values that differ by rounding only count as equal. With `alternative`
    "two-sided", p is twice the smaller one, at most 1. Labels of −1 stay where they are. With
    `labels = arange(n)` and a statistic that indexes a second set of points by them, the null is a
    random matching.

    `statistic` takes the points and labels; NaN, or an undefined `Estimate`, where it has no value:
    on the given labels p is NaN with the reason; draws leave the null and count in `n_dropped`.
    `generator` is on the CPU, by default one seeded with 0. Raises ValueError for unequal lengths,
    n_draws < 1, or an unknown `alternative`. Source: Phipson & Smyth (2010), *Permutation p-values
    should never be zero*.

    >>> points = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> gap = lambda x, y: x[y == 1].mean() - x[y == 0].mean()
    >>> test = permutation_test(gap, points, torch.tensor([0, 0, 0, 1, 1, 1]), n_draws=99)
    >>> test.p_value < 0.15, test.n_draws
    (True, 99)
    """
    check_labels_of(points, labels)
    if n_draws < 1:
        raise ValueError(f"`n_draws` must be at least 1, got {n_draws}.")
    if alternative not in get_args(Alternative):
        raise ValueError(
            f'`alternative` must be "greater", "less" or "two-sided", got {alternative!r}.'
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    observed, reason = _value(statistic(points, labels))
    if reason is not None:
        return null_test(observed, [], alternative)._replace(reason=reason)
    null, named = [], (labels >= 0).nonzero()[:, 0]
    for _ in range(n_draws):
        permuted = labels.clone()
        permuted[named] = labels[named[torch.randperm(len(named), generator=generator)]]
        null.append(_value(statistic(points, permuted))[0])
    return null_test(observed, null, alternative)


def null_test(
    observed: float, draws: Sequence[float], alternative: Alternative = "greater"
) -> PermutationTest:
    """Return how often draws of a null are as large as the value observed.

    `permutation_test` for draws made elsewhere, exchangeable with the value observed if the null
    holds. NaN draws leave the null and are counted; none left, or a value that is NaN: p is NaN.

    >>> null_test(3.0, [1.0, 2.0, 2.5]).p_value
    0.25
    """
    kept, nan, reason = _defined(draws), math.nan, "the statistic is undefined"
    none = PermutationTest(observed, nan, 0, 0, nan, (nan,) * len(QUANTILE_LEVELS), reason)
    if not math.isfinite(observed):
        return none
    if not len(kept):
        return none._replace(n_dropped=len(draws), reason=f"{reason} in every draw of the null")
    slack = 1e-12 * max(abs(observed), float(kept.abs().max()))
    n_extreme = int((kept >= observed - slack).sum()), int((kept <= observed + slack).sum())
    above, below = ((1 + n) / (1 + len(kept)) for n in n_extreme)
    two_sided = min(1.0, 2 * min(above, below))
    p_value = {"greater": above, "less": below, "two-sided": two_sided}[alternative]
    quantiles = tuple(_quantiles(kept, *QUANTILE_LEVELS))
    null = float(kept.mean()), quantiles, None, tuple(kept.tolist())
    return PermutationTest(observed, p_value, len(kept), len(draws) - len(kept), *null)


def subsample_interval(
    statistic: Callable[..., Estimate | Tensor | float],
    points: Points,
    *aligned: Tensor,
    fraction: float = 0.5,
    n_draws: int = 200,
    level: float = 0.95,
    rate: float = 0.5,
    generator: torch.Generator | None = None,
) -> Interval:
    """Return an interval of a statistic from subsamples drawn without replacement.

    With N points, b = ⌊fraction·N⌋ and τ(m) = m^rate the speed at which the statistic converges,

        [θ_N − c·q_{1−α/2}, θ_N − c·q_{α/2}],  c = τ(b)/τ(N)/√(1 − b/N),

    q the quantiles of θ_b − θ̄_b over the draws, θ̄_b their mean. The root corrects for drawing
    from a finite set. Unlike the bootstrap no point occurs twice, which would ruin nearest
    neighbors. The interval is one for E[θ_N], what samples of this size give on average: a drift
    with the number of points (dimension of noisy data, lengths of trees) is shared by all
    subsamples and leaves through their mean; how far E[θ_N] is from the limit at infinite N is not
    in it.

    `statistic` takes points and `aligned`, subsampled by the same rows; NaN, or an undefined
    `Estimate`, where it has no value: such subsamples are left out of `n_draws`; none left, or no
    value on all points: NaN bounds. `level` is the nominal coverage, `rate` 1/2 for means and what
    is smooth in them, `generator` on the CPU, by default one seeded with 0. Raises ValueError for
    fraction or level outside (0, 1), n_draws < 1, and unequal lengths. Source: Politis & Romano
    (1994); Shao & Wu (1989) for the correction.

    >>> points = torch.arange(100.0)[:, None]
    >>> interval = subsample_interval(lambda x: x.mean(), points)
    >>> interval.low < 49.5 < interval.high
    True
    """
    n_points = count_points(points)
    if not (0 < fraction < 1 and 0 < level < 1 and n_draws >= 1):
        raise ValueError(
            "`fraction` and `level` must lie between 0 and 1 and `n_draws` be at least 1, got "
            f"{fraction}, {level}, {n_draws}."
        )
    if any(len(other) != n_points for other in aligned):
        raise ValueError(
            f"`aligned` must have one row a point ({n_points}), got {[len(a) for a in aligned]}."
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    whole = _value(statistic(points, *aligned))[0]
    size, draws = int(fraction * n_points), []
    for _ in range(n_draws if size and whole == whole else 0):
        rows = torch.randperm(n_points, generator=generator)[:size]
        parts = [take_points(part, rows) for part in (points, *aligned)]
        draws.append(_value(statistic(*parts))[0])
    return interval_of_draws(whole, draws, size / max(n_points, 1), level=level, rate=rate)


def interval_of_draws(
    whole: float, draws: Sequence[float], fraction: float, *, level: float = 0.95, rate: float = 0.5
) -> Interval:
    """Return the interval of `subsample_interval` from values of the statistic on subsamples.

    NaN bounds where `whole` is NaN, and for fewer than two defined draws.

    >>> interval = interval_of_draws(10.0, [7.0, 8.0, 9.0], 0.5)
    >>> round(interval.low, 4), round(interval.high, 4)
    (9.05, 10.95)
    """
    if not (0 <= fraction < 1 and 0 < level < 1):
        raise ValueError(f"`fraction` and `level` must lie below 1, got {fraction} and {level}.")
    kept = _defined(draws)
    if len(kept) < 2 or not math.isfinite(whole):
        return Interval(math.nan, math.nan, level, 0)
    scale = fraction**rate / (1 - fraction) ** 0.5
    tail = (1 - level) / 2
    high, low = _quantiles(kept - kept.mean(), tail, 1 - tail)
    return Interval(whole - scale * low, whole - scale * high, level, len(kept))


def _value(result: Estimate | Tensor | float) -> tuple[float, str | None]:
    if isinstance(result, Estimate):
        return float(result), result.reason
    value = float(result.detach() if isinstance(result, Tensor) else result)
    if math.isfinite(value):
        return value, None
    kind = "NaN" if math.isnan(value) else "infinite"
    return value, f"the statistic is {kind} on the given labels"


def _defined(draws: Sequence[float]) -> Tensor:
    values = torch.tensor(draws, dtype=torch.float64)
    return values[values.isfinite()]


def _quantiles(values: Tensor, *levels: float) -> list[float]:
    return torch.quantile(values, torch.tensor(levels, dtype=torch.float64)).tolist()
