"""The statistics that case 3's tables share: the interval of a mean, and correlations."""

from collections.abc import Sequence

import torch
from scipy import stats
from torch import Tensor

from saerepgeo.types import Float, Int, Interval

NAN = float("nan")


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
