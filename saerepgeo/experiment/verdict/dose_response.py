"""Does separability move the reconstruction error? The dose–response over matched runs.

A run is one fine-tuning with the signed dose λ; that with λ = 0 of the same seed is its control.
x and y are the changes of log separability and of log error against the control. In each seed both
are fitted over the doses,

    x = a₁λ + a₂λ² + a₃λ³,   y = c₁λ + c₂λ² + c₃λ³,

and over seeds β = Σc₁ / Σa₁ is the slope dy/dx at the control: an elasticity, the relative change
of the error for a relative change of separability. What every push costs, up or down alike, sits in
the higher terms and is no effect of separability, also where separability answers unevenly. The
assigned dose is an instrument: chance that moves both figures of a run (they come from the same
points) does not enter β.

Seeds are the independent draws (data order and held-out items). The test flips the signs of c₁ of
whole seeds; the interval is Student's over c₁ − β·a₁ (delta method for the ratio of means).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.cases.statistics import correlations, student_interval
from saerepgeo.experiment.cells import NAN, is_positive
from saerepgeo.types import Float, Interval, generator_for

MIN_SEEDS = 3
EXACT_UP_TO = 14
"""Seeds up to which all sign flips are counted instead of drawn."""


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
    n_seeds: int
    n_dropped: int
    """Seeds without a control, or without doses on both sides of it."""
    reason: str | None = None


def dose_response(runs: Iterable[Run], level: float = 0.95) -> DoseResponse:
    """Return slope, interval and p-value of the response (equations in the module's docstring).

    The cubic term needs two doses on each side of 0; with fewer the fit is quadratic. Fewer than
    three seeds with a control and doses both ways, or doses that leave separability where it was:
    undefined. ValueError: a figure that is not positive and finite (logarithms are taken), or one
    (seed, dose) twice.

    >>> runs = [Run(s, d, 2.0 ** (d + 0.1 * s), 2.0 ** (-0.5 * d)) for s in range(6)
    ...         for d in (-1.0, 0.0, 1.0)]
    >>> result = dose_response(runs)
    >>> round(result.slope, 6), round(result.moved, 6), result.p_value
    (-0.5, 1.386294, 0.03125)
    """
    by_seed = _changes(runs)
    kept = [c for c in by_seed.values() if (c[0] > 0).any() and (c[0] < 0).any()]
    n, n_dropped = len(kept), len(by_seed) - len(kept)
    if n < MIN_SEEDS:
        reason = f"needs {MIN_SEEDS} seeds with a control and doses both ways, got {n}"
        return _undefined(reason, n, n_dropped, level)
    coefficients = torch.stack([_polynomial(*changes) for changes in kept])
    a, c = coefficients[:, 0].T
    if not bool(a.mean().abs() > 1e-9):
        return _undefined("the doses left separability where it was", n, n_dropped, level)
    moved = torch.stack([x[dose.argmax()] - x[dose.argmin()] for dose, x, _ in kept])
    slope = float(c.mean() / a.mean())
    spread = student_interval((c - slope * a) / a.mean().abs(), level)
    _, x, y = (torch.cat(parts).tolist() for parts in zip(*kept, strict=True))
    pearson, _, spearman = correlations(x, y)
    return DoseResponse(
        slope=slope,
        interval=spread._replace(low=slope + spread.low, high=slope + spread.high),
        p_value=sign_flip_test(c),
        curvature=float(coefficients[:, 1, 1].mean()),
        moved=float(moved.mean()),
        moved_interval=student_interval(moved, level),
        pearson=pearson,
        spearman=spearman,
        n_seeds=n,
        n_dropped=n_dropped,
    )


def _changes(runs: Iterable[Run]) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """Return for each seed: doses other than 0, Δ log separability, Δ log error."""
    table: dict[int, dict[float, Tensor]] = defaultdict(dict)
    for run in runs:
        if run.dose in table[run.seed]:
            raise ValueError(f"expected one run a seed and dose, got two of {run[:2]}")
        figures = torch.tensor(run[2:], dtype=torch.float64)
        if not (is_positive(run.separability) and is_positive(run.error)):
            raise ValueError(
                f"separability and error must be positive and finite, got {run}; "
                "leave such runs out and say so"
            )
        table[run.seed][run.dose] = figures.log()
    changes = {}
    for seed, cells in table.items():
        doses = sorted(dose for dose in cells if dose != 0) if 0.0 in cells else []
        delta = [cells[dose] - cells[0.0] for dose in doses]
        x, y = torch.stack(delta).T if delta else torch.zeros(2, 0, dtype=torch.float64)
        changes[seed] = (torch.tensor(doses, dtype=torch.float64), x, y)
    return changes


def _polynomial(dose: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return coefficients `[power, (x, y)]` of λ over its largest value, without a constant."""
    is_cubic = int((dose > 0).sum()) >= 2 and int((dose < 0).sum()) >= 2
    powers = torch.arange(1, 4 if is_cubic else 3)
    design = (dose / dose.abs().max())[:, None] ** powers
    return torch.linalg.lstsq(design, torch.stack([x, y], dim=1)).solution


def sign_flip_test(values: Float[Tensor, "seed"], n_draws: int = 19_999, seed: int = 0) -> float:
    """Return the two-sided p-value of mean 0 for independent values, symmetric under the null.

    p = #{flips ε ∈ {±1}^n: |Σ ε_s v_s| ≥ |Σ v_s|} / 2^n, exact up to 14 values; from there
    (1 + #)/(1 + n_draws) over random flips. The least p of n values is 2^(1−n). No values: NaN.

    >>> sign_flip_test(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    0.03125
    """
    v, n = values.double(), len(values)
    if n == 0:
        return NAN
    if n <= EXACT_UP_TO:
        bits = torch.arange(2**n)[:, None] >> torch.arange(n) & 1
    else:
        generator = generator_for(seed, "sign flips", n)
        bits = torch.randint(0, 2, (n_draws, n), generator=generator)
    # sums that differ by rounding alone count as equal, also where the observed one is 0
    slack = 1e-12 * float(v.abs().sum())
    is_extreme = ((2.0 * bits.double() - 1.0) @ v).abs() >= v.sum().abs() - slack
    n_unflipped = int(n > EXACT_UP_TO)  # random flips seldom hold the observed signs
    return (n_unflipped + int(is_extreme.sum())) / (n_unflipped + len(bits))


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

    Fewer than two common seeds give a NaN interval.
    """
    seeds = sorted(set(first) & set(second))
    changes = [math.log(first[seed]) - math.log(second[seed]) for seed in seeds]
    values = torch.tensor(changes, dtype=torch.float64)
    interval = student_interval(values, level)
    return {
        "difference": float(values.mean()) if seeds else NAN,
        "low": interval.low,
        "high": interval.high,
        "p_value": sign_flip_test(values),
        "n_seeds": len(seeds),
    }


def _undefined(reason: str, n_seeds: int, n_dropped: int, level: float) -> DoseResponse:
    empty = Interval(NAN, NAN, level, 0)
    return DoseResponse(NAN, empty, NAN, NAN, NAN, empty, NAN, NAN, n_seeds, n_dropped, reason)
