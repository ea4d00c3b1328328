"""Statistics that tables share: the interval of a mean, correlations and their intervals."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from saerepgeo.geometry.nulls import PermutationTest, null_test
from saerepgeo.types import Estimate, Float, Int, Interval, generator_for

NAN = float("nan")
LEAST_PAIRS = 5
"""Of four values by chance one order in twelve is the order of others, or its reverse."""
LEAST_LEFT = 1e-12
"""Of the variance of ranks beside those given, where it is not rounding."""


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
    given: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
    least: int = LEAST_PAIRS,
    n_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Estimate, Interval]:
    """Return Spearman's rank correlation with a bootstrap interval over the pairs.

    With z `given`, the partial correlation (ρ_xy − ρ_xz·ρ_yz)/√((1 − ρ_xz²)(1 − ρ_yz²)), Kendall's
    (1942): what is left where z goes along with neither.

    Pairs with a NaN are dropped. The interval is that of percentiles over `n_draws` resamples of
    the pairs, those left out in which the figure is undefined; of few pairs it is too narrow. Pairs
    of one of the `groups` are repeats, and come into a resample together. Undefined: fewer than
    `least` pairs or groups (one more with z given), equal values on one side, or ranks that are
    those of z. Source: Efron & Tibshirani (1993); Davison & Hinkley (1997), 3.8, for groups.

    >>> estimate, interval = spearman([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 4.0, 9.0, 16.0, 25.0])
    >>> float(estimate), estimate.n_used, interval.low
    (1.0, 5, 1.0)
    """
    columns = np.array([x, y] if given is None else [x, y, given], dtype=np.float64)
    kept = np.asarray(np.isfinite(columns).all(axis=0))
    n, n_dropped = int(kept.sum()), int((~kept).sum())
    columns, least = columns[:, kept], least + (given is not None)
    _, members = _numbers(range(len(kept)) if groups is None else groups, kept)
    n_groups = int(members.max(initial=-1)) + 1
    reason = None
    if n_groups < least:
        reason = f"{n_groups} {'pairs' if groups is None else 'groups'}, {least} needed"
    elif any(len(set(side)) == 1 for side in columns.tolist()):
        reason = "equal values on one side"
    value = math.nan if reason else float(_correlation_of_ranks(columns, np.ones((1, n)))[0])
    if reason is None and math.isnan(value):
        reason = "the order of one side is that of what is given"
    if reason is not None:
        return Estimate.undefined(reason, n, n_dropped), Interval(NAN, NAN, level, 0)
    generator = generator_for(seed, "bootstrap")
    drawn = torch.randint(n_groups, (n_draws, n_groups), generator=generator)
    times = torch.zeros(n_draws, n_groups).scatter_add(1, drawn, torch.ones(drawn.shape))
    draws = _correlation_of_ranks(columns, times.double().numpy()[:, members])
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()
    estimate = Estimate(torch.tensor(value, dtype=torch.float64), n, n_dropped)
    return estimate, Interval(low, high, level, len(draws))


def share_between_groups(
    values: Sequence[float],
    groups: Sequence[Hashable],
    *,
    n_draws: int = 999,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Estimate, Interval, PermutationTest | None]:
    """Return the share of a variance that lies between groups: the intraclass correlation ICC(1).

    (MSB − MSW)/(MSB + (n₀ − 1)·MSW) of the mean squares between K groups and within them, N values
    in all, n₀ = (N − Σ n_g²/N)/(K − 1); below 0 where members of a group are less alike than
    others. The interval is that of F = MSB/MSW, exact for normal values in groups of one size. p is
    how often F is as large with the groups dealt out at random. NaN values are dropped. Undefined
    without two groups of two or more, and for equal values. Source: Shrout & Fleiss (1979); Donner
    (1979) for unequal groups.

    >>> estimate, interval, test = share_between_groups([1.0, 1.1, 3.0, 3.1], ["a", "a", "b", "b"])
    >>> round(float(estimate), 3), test.p_value < 0.4
    (0.998, True)
    """
    x = np.array(values, dtype=np.float64)
    kept = np.isfinite(x)
    sizes, members = _numbers(groups, kept)
    x, n, n_dropped = x[kept], int(kept.sum()), int((~kept).sum())
    reason, n_repeated = None, int((sizes > 1).sum())
    if n_repeated < 2:
        reason = f"groups of two or more: {n_repeated}, 2 needed"
    elif len(set(x.tolist())) == 1:
        reason = "equal values"
    if reason is not None:
        return Estimate.undefined(reason, n, n_dropped), Interval(NAN, NAN, level, 0), None
    orders = torch.rand(n_draws, n, generator=generator_for(seed, "groups")).argsort(1).numpy()
    observed, *draws = _f_ratios(np.vstack([x, x[orders]]), members).tolist()
    k, typical = len(sizes), (n - float((sizes**2).sum()) / n) / (len(sizes) - 1)

    def share(f: float) -> float:
        return 1.0 if math.isinf(f) else (f - 1) / (f + typical - 1)

    tail = 1 - (1 - level) / 2
    low = share(observed / float(stats.f.ppf(tail, k - 1, n - k)))
    high = share(observed * float(stats.f.ppf(tail, n - k, k - 1)))
    test = null_test(share(observed), list(map(share, draws)))
    estimate = Estimate(torch.tensor(share(observed), dtype=torch.float64), n, n_dropped)
    return estimate, Interval(low, high, level, n), test


def _numbers(groups: Sequence[Hashable], kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sizes of the groups of what is kept, and whose member each is."""
    own = [group for group, is_kept in zip(groups, kept.tolist(), strict=True) if is_kept]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(own))}
    members = np.array([numbers[group] for group in own], dtype=np.int64)
    return np.bincount(members), members


def _f_ratios(rows: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return MSB/MSW of each of the rows `[row, value]`; infinite where groups do not scatter."""
    is_in = np.equal.outer(np.arange(members.max() + 1), members)
    sizes = is_in.sum(1)
    rows = rows - rows.mean(1, keepdims=True)
    means = rows @ is_in.T / sizes
    between = (sizes * means**2).sum(1) / (len(sizes) - 1)
    within = ((rows - means[:, members]) ** 2).sum(1) / (len(members) - len(sizes))
    # of values that are alike a mean is off by rounding
    is_nothing = within <= 1e-24 * (between + within)
    return np.where(is_nothing, np.inf, between / np.where(is_nothing, 1, within))


def _correlation_of_ranks(columns: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the correlation in ranks of `[column, pair]`, a third one given, draw by draw.

    In a draw each pair is there so many `times` `[draw, pair]`. NaN where a column is constant, or
    in the order of the one given.
    """
    others, own = columns[:, None, :], columns[:, :, None]
    ranks = np.einsum("dj,cij->cdi", times, (others < own) + 0.5 * (others == own))
    ranks -= (ranks * times).sum(-1, keepdims=True) / times.sum(-1, keepdims=True)
    products = np.einsum("di,adi,bdi->abd", times, ranks, ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.einsum("aad->ad", products)
        r = products / np.sqrt(squares[:, None] * squares[None])
        if len(columns) == 2:
            return np.asarray(r[0, 1])
        left = 1 - r[:2, 2] ** 2
        partial = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt(left.prod(0))
        return np.where((left > LEAST_LEFT).all(0), partial, NAN)
