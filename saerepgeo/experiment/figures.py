"""Figures of the experiment: dose–response with controls, and the Pareto front."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from saerepgeo.experiment.cells import POOLED, TEXT, Cell, Row, cell_figures, figure_pairs
from saerepgeo.report.palette import look, new_figure

Pair = tuple[float, float]
"""Two figures of a run, or Δ log of them against the control of its seed."""


def dose_response_figure(
    rows: Sequence[Row], separability: str = "relative_aedp", error: str = "mse"
) -> Any:
    """Return Δ log error against Δ log separability on held-out items, a panel a regularizer.

    Every point is a run against the control of its seed: filled with true labels, hollow with
    shuffled ones; color is the dose. The cross is the control.
    """
    runs = _pooled(rows, separability, error)
    arms = _changes(runs)
    regularizers = sorted({cell.regularizer for cell in runs if cell.dose != 0})
    doses = sorted({cell.dose for cell in runs if cell.dose != 0})
    n_panels = max(len(regularizers), 1)
    figure = new_figure(4.2 * n_panels, 3.8)
    axes = figure.subplots(1, n_panels, squeeze=False, sharey=True)[0]
    for axis, regularizer in zip(axes, regularizers, strict=False):
        for arm in [arm for arm in arms if arm.regularizer == regularizer]:
            is_given, style = arm.labels == "given", look(doses.index(arm.dose))
            axis.plot(
                *zip(*arms[arm], strict=True),
                linestyle="none",
                markerfacecolor=style["color"] if is_given else "none",
                label=f"λ = {arm.dose:+g}{'' if is_given else ', shuffled labels'}",
                **style,
            )
        axis.plot(0, 0, "k+", markersize=10, label="λ = 0")
        axis.axhline(0, color="0.8", zorder=0)
        axis.axvline(0, color="0.8", zorder=0)
        n_seeds = len({cell.seed for cell in runs if cell.regularizer == regularizer})
        axis.set_title(f"{regularizer}, n = {n_seeds} seeds")
        axis.set_xlabel(f"Δ log {separability}, held-out items")
        axis.locator_params(axis="x", nbins=5)
        axis.legend(fontsize="x-small")
    axes[0].set_ylabel(f"Δ log {error}, held-out items")
    return figure


def pareto_figure(rows: Sequence[Row], separability: str = "relative_aedp") -> Any:
    """Return separability of held-out items against FVU of held-out text, both against λ = 0.

    Points are means over seeds of log ratios to the control of the same seed, whiskers ± one
    standard error.
    """
    fvu = cell_figures(rows, "fvu", TEXT)
    pooled = _pooled(rows, separability, "mse")
    runs = {cell: (x, fvu[cell][TEXT]) for cell, (x, _) in pooled.items() if cell in fvu}
    arms = _changes(runs)
    figure = new_figure(4.8, 3.8)
    axis = figure.subplots()
    axis.plot(0, 0, "k+", markersize=10, label="λ = 0")
    lines = sorted({(arm.regularizer, arm.labels) for arm in arms})
    for number, (regularizer, labels) in enumerate(lines):
        is_given = labels == "given"
        own = [arm for arm in arms if (arm.regularizer, arm.labels) == (regularizer, labels)]
        x, y = ([_percent([change[i] for change in arms[arm]]) for arm in own] for i in (0, 1))
        axis.errorbar(
            [mean for mean, _ in x],
            [mean for mean, _ in y],
            xerr=[error for _, error in x],
            yerr=[error for _, error in y],
            linestyle="-" if is_given else ":",
            markersize=4,
            label=regularizer if is_given else f"{regularizer}, shuffled labels",
            **look(number),
        )
        place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": "xx-small"}
        for arm, (at_x, _), (at_y, _) in zip(own, x, y, strict=True):
            axis.annotate(f"{arm.dose:+g}", (at_x, at_y), **place)
    axis.set_xlabel(f"Δ {separability}, held-out items [%]")
    axis.set_ylabel("Δ FVU, held-out text [%]")
    axis.set_title(f"n = {len({cell.seed for cell in runs if cell.dose == 0})} seeds")
    axis.legend(fontsize="x-small")
    return figure


def _pooled(rows: Sequence[Row], separability: str, error: str) -> dict[Cell, Pair]:
    pairs = figure_pairs(rows, separability, error)
    return {cell: of_cell[POOLED] for cell, of_cell in pairs.items() if POOLED in of_cell}


def _changes(runs: Mapping[Cell, Pair]) -> dict[Cell, list[Pair]]:
    """Return Δ log of both figures against the control of a run's seed, by arm, in order."""
    controls = {cell.seed: pair for cell, pair in runs.items() if cell.dose == 0}
    arms = defaultdict(list)
    for cell, pair in runs.items():
        if cell.dose != 0 and cell.seed in controls:
            x, y = (math.log(a / b) for a, b in zip(pair, controls[cell.seed], strict=True))
            arms[cell.arm].append((x, y))
    return dict(sorted(arms.items()))


def _percent(changes: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard error in percent; of one run the error is 0."""
    n = len(changes)
    error = statistics.stdev(changes) / math.sqrt(n) if n > 1 else 0.0
    return 100 * statistics.fmean(changes), 100 * error
