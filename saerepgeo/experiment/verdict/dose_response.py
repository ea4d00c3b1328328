"""Does separability move the reconstruction error? The dose–response over matched runs.

A run is one fine-tuning with the signed dose λ (above 0 separability is rewarded, below 0 it is
punished); the run with λ = 0 of the same seed is its control. x and y are the changes of log
separability and of log error against the control. In each seed both are fitted over the doses,

    x = a₁λ + a₂λ² + a₃λ³,   y = c₁λ + c₂λ² + c₃λ³,

and over seeds β = Σc₁ / Σa₁ is the slope dy/dx at the control: an elasticity, the relative change
of the error for a relative change of separability. What every push costs, up or down alike, sits in
the higher terms and is no effect of separability, also where separability answers unevenly. The
assigned dose is an instrument: chance that moves both figures of a run (they come from the same
points) does not enter β.

Seeds are the independent draws (data order and held-out items). The test flips the signs of c₁ of
whole seeds; the interval is Student's over c₁ − β·a₁ (delta method for the ratio of means).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor

from saerepgeo.types import Float, Interval, generator_for

__all__ = [
    "DoseResponse",
    "Run",
    "dose_response",
    "holm",
    "paired_difference",
    "sign_flip_test",
    "student_interval",
]

EXACT_UP_TO = 14
"""Seeds up to which all sign flips are counted instead of drawn."""
MIN_SEEDS = 3


class Run(NamedTuple):
    """What one fine-tuning came to, by one measure of separability and one of error."""

    seed: int
    dose: float
    """Signed λ."""
    separability: float
    error: float


class DoseResponse(NamedTuple):
    """The response of log error to log separability over seeds."""

    slope: float
    """β; NaN exactly where `reason` says why."""
    interval: Interval
    p_value: float
    """Two-sided, that the error's first-order response c₁ is 0, by sign flips of seeds."""
    curvature: float
    """Mean over seeds of c₂ at the largest dose: the relative price of any push."""
    moved: float
    """Mean over seeds of log separability at the highest dose less that at the lowest."""
    moved_interval: Interval
    pearson: float
    """Correlation of Δ log error with Δ log separability over all runs but the controls."""
    spearman: float
    slopes: tuple[float, ...]
    """c₁ of each seed over the mean of a₁."""
    n_seeds: int
    n_dropped: int
    """Seeds without a control, or without doses on both sides of it."""
    reason: str | None = None


def dose_response(runs: Iterable[Run], level: float = 0.95) -> DoseResponse:
    """Return slope, interval and p-value of the response (equations in the module's docstring).

    The cubic term needs two doses on each side of 0; with fewer the fit is quadratic. Seeds
    without a control or without doses on both sides are left out and counted in `n_dropped`.
    Fewer than three seeds left, or doses that leave separability where it was: undefined.

    Raises:
        ValueError: a figure that is not positive and finite (logarithms are taken), or one
            (seed, dose) twice.

    >>> runs = [Run(s, d, 2.0 ** (d + 0.1 * s), 2.0 ** (-0.5 * d)) for s in range(6)
    ...         for d in (-1.0, 0.0, 1.0)]
    >>> result = dose_response(runs)
    >>> round(result.slope, 6), round(result.moved, 6), result.p_value
    (-0.5, 1.386294, 0.03125)
    """
    by_seed = _changes(runs)
    kept = {seed: c for seed, c in by_seed.items() if (c[0] > 0).any() and (c[0] < 0).any()}
    n, n_dropped = len(kept), len(by_seed) - len(kept)
    if n < MIN_SEEDS:
        reason = f"needs {MIN_SEEDS} seeds with a control and doses both ways, got {n}"
        return _undefined(reason, n, n_dropped, level)
    coefficients = torch.stack([_polynomial(*changes) for changes in kept.values()])
    first = coefficients[:, 0]
    a, c = first[:, 0], first[:, 1]
    if not bool(a.mean().abs() > 1e-9):
        return _undefined("the doses left separability where it was", n, n_dropped, level)
    moved = torch.stack([x[d.argmax()] - x[d.argmin()] for d, x, _ in kept.values()])
    slope = float(c.mean() / a.mean())
    spread = student_interval((c - slope * a) / a.mean().abs(), level)
    _, x, y = (torch.cat(column) for column in zip(*kept.values(), strict=True))
    return DoseResponse(
        slope=slope,
        interval=spread._replace(low=slope + spread.low, high=slope + spread.high),
        p_value=sign_flip_test(c),
        curvature=float(coefficients[:, 1, 1].mean()),
        moved=float(moved.mean()),
        moved_interval=student_interval(moved, level),
        pearson=_correlation(x, y),
        spearman=_correlation(_ranks(x), _ranks(y)),
        slopes=tuple((c / a.mean()).tolist()),
        n_seeds=n,
        n_dropped=n_dropped,
    )


def _changes(runs: Iterable[Run]) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """Return for each seed: doses other than 0, Δ log separability, Δ log error."""
    table: dict[int, dict[float, Tensor]] = defaultdict(dict)
    for run in runs:
        if run.dose in table[run.seed]:
            raise ValueError(f"expected one run a seed and dose, got two of {run[:2]}")
        figures = torch.tensor([run.separability, run.error], dtype=torch.float64)
        if not bool((figures > 0).all() and figures.isfinite().all()):
            raise ValueError(
                f"separability and error must be positive and finite, got {run}; "
                "leave such runs out and say so"
            )
        table[run.seed][run.dose] = figures.log()
    changes = {}
    for seed, cells in table.items():
        doses = sorted(dose for dose in cells if dose != 0)
        if 0.0 not in cells or not doses:
            empty = torch.zeros(0, dtype=torch.float64)
            changes[seed] = (empty, empty, empty)
            continue
        delta = torch.stack([cells[dose] - cells[0.0] for dose in doses])
        changes[seed] = (torch.tensor(doses, dtype=torch.float64), delta[:, 0], delta[:, 1])
    return changes


def _polynomial(dose: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return coefficients `[power, (x, y)]` of λ over its largest value, without a constant."""
    unit = dose / dose.abs().max()
    is_cubic = int((dose > 0).sum()) >= 2 and int((dose < 0).sum()) >= 2
    powers = torch.arange(1, 4 if is_cubic else 3)
    design = unit[:, None] ** powers
    return torch.linalg.lstsq(design, torch.stack([x, y], dim=1)).solution


def sign_flip_test(values: Float[Tensor, "seed"], n_draws: int = 19_999, seed: int = 0) -> float:
    """Return the two-sided p-value of mean 0 for independent values, symmetric under the null.

    p = #{flips ε ∈ {±1}^n: |Σ ε_s v_s| ≥ |Σ v_s|} / 2^n, exact up to 14 values; from there
    (1 + #)/(1 + n_draws) over random flips. The least p that n values can give is 2^(1−n): with
    five seeds nothing falls under 0.0625. No values: NaN.

    >>> sign_flip_test(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    0.03125
    """
    v, n = values.double(), len(values)
    if n == 0:
        return float("nan")
    slack = 1e-12 * float(v.abs().sum())
    if n <= EXACT_UP_TO:
        bits = torch.arange(2**n)[:, None] >> torch.arange(n) & 1
        sums = (2.0 * bits.double() - 1.0) @ v
        return float((sums.abs() >= v.sum().abs() - slack).double().mean())
    generator = generator_for(seed, "sign flips", n)
    flips = torch.randint(0, 2, (n_draws, n), generator=generator).double() * 2 - 1
    n_extreme = int(((flips @ v).abs() >= v.sum().abs() - slack).sum())
    return (1 + n_extreme) / (1 + n_draws)


def student_interval(values: Float[Tensor, "seed"], level: float = 0.95) -> Interval:
    """Return mean ± t_(n−1)·s/√n; NaN bounds for fewer than two values.

    >>> [round(bound, 3) for bound in student_interval(torch.tensor([1.0, 2.0, 3.0]))[:2]]
    [-0.484, 4.484]
    """
    n = len(values)
    if n < 2:
        return Interval(float("nan"), float("nan"), level, n)
    v = values.double()
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * float(v.std()) / n**0.5
    return Interval(float(v.mean()) - half, float(v.mean()) + half, level, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: p_(i) → max_{j≤i} min(1, (m − j + 1)·p_(j)).

    NaN stands for a test that was not made: it stays NaN and does not count in m.
    Source: Holm (1979), *A simple sequentially rejective multiple test procedure*.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    made = sorted((p, index) for index, p in enumerate(p_values) if p == p)
    adjusted, running = list(p_values), 0.0
    for rank, (p, index) in enumerate(made):
        running = max(running, min(1.0, (len(made) - rank) * p))
        adjusted[index] = running
    return adjusted


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], level: float = 0.95
) -> dict[str, Any]:
    """Return mean, interval and p-value of log first − log second over the seeds both have.

    The relative difference of two arms at the same seeds, e.g. true against shuffled labels.
    Fewer than two common seeds give a NaN interval.
    """
    seeds = sorted(set(first) & set(second))
    pairs = torch.tensor([[first[s], second[s]] for s in seeds], dtype=torch.float64).view(-1, 2)
    values = pairs[:, 0].log() - pairs[:, 1].log()
    interval = student_interval(values, level)
    return {
        "difference": float(values.mean()) if seeds else float("nan"),
        "low": interval.low,
        "high": interval.high,
        "p_value": sign_flip_test(values),
        "n_seeds": len(seeds),
    }


def _undefined(reason: str, n_seeds: int, n_dropped: int, level: float) -> DoseResponse:
    nan = float("nan")
    empty = Interval(nan, nan, level, 0)
    return DoseResponse(nan, empty, nan, nan, nan, empty, nan, nan, (), n_seeds, n_dropped, reason)


def _correlation(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = x.norm() * y.norm()
    return float(x @ y / norm) if bool(norm > 0) else float("nan")


def _ranks(values: Tensor) -> Tensor:
    return torch.from_numpy(stats.rankdata(values.numpy()))
