"""Statistics that tables share: the interval of a mean, correlations and their intervals."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from saerepgeo.types import Estimate, Float, Int, Interval, generator_for

NAN = float("nan")
LEAST_PAIRS = 5
"""Of four values by chance one order in twelve is the order of others, or its reverse."""


def student_interval(
    values: Float[Tensor, "value"], level: float = 0.95, groups: Int[Tensor, "value"] | None = None
) -> Interval:
    """Return Student's interval of a mean, by the spread of the groups that values come in.

    x̄ ± t_(K−1)·s,  s² = K/(K−1) Σ_k (Σ_{i∈k} (x_i − x̄))²/N²: the cluster-robust variance of a
    mean of N values in K groups; without `groups`, each value its own, s²/N. NaN bounds for fewer
    than two groups. Source: Liang and Zeger (1986).

    >>> [round(bound, 3) for bound in student_interval(torch.tensor([1.0, 2.0, 3.0]))[:2]]
    [-0.484, 4.484]
    """
    x = values.double()
    groups = torch.arange(len(x)) if groups is None else groups
    n_groups = len(groups.unique())
    if n_groups < 2:
        return Interval(NAN, NAN, level, n_groups)
    mean = float(x.mean())
    sums = torch.zeros(int(groups.max()) + 1, dtype=x.dtype).index_add(0, groups, x - mean)
    error = float(sums.square().sum() * n_groups / (n_groups - 1)) ** 0.5 / len(x)
    half = float(stats.t.ppf(0.5 + level / 2, n_groups - 1)) * error
    return Interval(mean - half, mean + half, level, n_groups)


def correlations(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Return Pearson's correlation, its p-value, and Spearman's.

    NaN for fewer than three pairs, or where either is constant.

    >>> correlations([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    (nan, nan, nan)
    """
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return NAN, NAN, NAN
    pearson, p_value = map(float, stats.pearsonr(x, y))
    return pearson, p_value, float(stats.spearmanr(x, y).statistic)


def spearman(
    x: Sequence[float],
    y: Sequence[float],
    *,
    least: int = LEAST_PAIRS,
    n_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Estimate, Interval]:
    """Return Spearman's rank correlation with a bootstrap interval over the pairs.

    Pairs with a NaN are dropped. The interval is that of percentiles over `n_draws` resamples of
    the pairs, those left out in which one side is constant; of few pairs it is too narrow. Fewer
    than `least` pairs, or equal values on one side: undefined. Source: Efron & Tibshirani (1993).

    >>> estimate, interval = spearman([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 4.0, 9.0, 16.0, 25.0])
    >>> float(estimate), estimate.n_used, interval.low
    (1.0, 5, 1.0)
    """
    pairs = np.array([x, y], dtype=np.float64)
    kept = np.isfinite(pairs).all(axis=0)
    n, n_dropped, reason = int(kept.sum()), int((~kept).sum()), None
    pairs = pairs[:, kept]
    if n < least:
        reason = f"{n} pairs, {least} needed"
    elif any(len(set(side)) == 1 for side in pairs.tolist()):
        reason = "equal values on one side"
    if reason is not None:
        return Estimate.undefined(reason, n, n_dropped), Interval(NAN, NAN, level, 0)
    rows = torch.randint(n, (n_draws, n), generator=generator_for(seed, "bootstrap")).numpy()
    value, draws = _correlation_of_ranks(pairs[:, None])[0], _correlation_of_ranks(pairs[:, rows])
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()
    estimate = Estimate(torch.tensor(value, dtype=torch.float64), n, n_dropped)
    return estimate, Interval(low, high, level, len(draws))


def _correlation_of_ranks(pairs: np.ndarray) -> np.ndarray:
    """Return the correlation of `[side, draw, pair]` in ranks, draw by draw; NaN where constant."""
    ranks = stats.rankdata(pairs, axis=-1)
    x, y = ranks - ranks.mean(axis=-1, keepdims=True)
    scale = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(-1) / scale)
