"""Figures of the experiment: dose–response with controls, and the Pareto front."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saerepgeo.experiment.cells import POOLED, TEXT, Cell, cell_figures, figure_pairs
from saerepgeo.report.palette import COLORS, MARKERS, new_figure

Row = Mapping[str, Any]
Change = tuple[float, float]
"""Δ log of two figures of a run against the control of its seed."""


def dose_response_figure(
    rows: Sequence[Row], separability: str = "relative_aedp", error: str = "mse"
) -> Any:
    """Return Δ log error against Δ log separability on held-out items, a panel a regularizer.

    Every point is a run against the control of its seed: filled with true labels, hollow with
    shuffled ones; color is the dose. The cross is the control.
    """
    pairs = figure_pairs(rows, separability, error)
    runs = {cell: of_cell[POOLED] for cell, of_cell in pairs.items() if POOLED in of_cell}
    regularizers = sorted({cell.regularizer for cell in runs if cell.dose != 0})
    doses = sorted({cell.dose for cell in runs if cell.dose != 0})
    arms = defaultdict(list)
    for cell, change in _changes(runs):
        arms[cell._replace(seed=0)].append(change)
    n_panels = max(len(regularizers), 1)
    figure = new_figure(4.2 * n_panels, 3.8)
    axes = figure.subplots(1, n_panels, squeeze=False, sharey=True)[0]
    for axis, regularizer in zip(axes, regularizers, strict=False):
        for number, dose in enumerate(doses):
            for labels, suffix in (("given", ""), ("shuffled", ", shuffled labels")):
                found = arms.get(Cell(regularizer, dose, 0, labels))
                if not found:
                    continue
                color = COLORS[number % len(COLORS)]
                axis.plot(
                    *zip(*found, strict=True),
                    linestyle="none",
                    marker=MARKERS[number % len(MARKERS)],
                    color=color,
                    markerfacecolor="none" if suffix else color,
                    label=f"λ = {dose:+g}{suffix}",
                )
        _mark_control(axis)
        axis.axhline(0, color="0.8", zorder=0)
        axis.axvline(0, color="0.8", zorder=0)
        n_seeds = len({cell.seed for cell in runs if cell.regularizer == regularizer})
        axis.set(
            title=f"{regularizer}, n = {n_seeds} seeds",
            xlabel=f"Δ log {separability}, held-out items",
        )
        axis.locator_params(axis="x", nbins=5)
        axis.legend(fontsize="x-small")
    axes[0].set_ylabel(f"Δ log {error}, held-out items")
    return figure


def pareto_figure(rows: Sequence[Row], separability: str = "relative_aedp") -> Any:
    """Return separability of held-out items against FVU of held-out text, both against λ = 0.

    Points are means over seeds of log ratios to the control of the same seed, whiskers ± one
    standard error.
    """
    pairs = figure_pairs(rows, separability, "mse")
    fvu = cell_figures(rows, "fvu", TEXT)
    runs = {
        cell: (of_cell[POOLED][0], fvu[cell][TEXT])
        for cell, of_cell in pairs.items()
        if POOLED in of_cell and cell in fvu
    }
    arms: dict[tuple[str, str], dict[float, list[Change]]] = defaultdict(lambda: defaultdict(list))
    for cell, change in _changes(runs):
        arms[cell.regularizer, cell.labels][cell.dose].append(change)
    figure = new_figure(4.8, 3.8)
    axis = figure.subplots()
    _mark_control(axis)
    for number, ((regularizer, labels), by_dose) in enumerate(sorted(arms.items())):
        is_given = labels == "given"
        doses = sorted(by_dose)
        x, y = zip(
            *(map(_mean_and_error, zip(*by_dose[d], strict=True)) for d in doses), strict=True
        )
        axis.errorbar(
            [mean for mean, _ in x],
            [mean for mean, _ in y],
            xerr=[error for _, error in x],
            yerr=[error for _, error in y],
            fmt=("-" if is_given else ":") + MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=4,
            label=regularizer if is_given else f"{regularizer}, shuffled labels",
        )
        for dose, (at_x, _), (at_y, _) in zip(doses, x, y, strict=True):
            place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": "xx-small"}
            axis.annotate(f"{dose:+g}", (at_x, at_y), **place)
    axis.set(
        xlabel=f"Δ {separability}, held-out items [%]",
        ylabel="Δ FVU, held-out text [%]",
        title=f"n = {len({cell.seed for cell in runs if cell.dose == 0})} seeds",
    )
    axis.legend(fontsize="x-small")
    return figure


def _changes(runs: Mapping[Cell, tuple[float, float]]) -> Iterator[tuple[Cell, Change]]:
    """Give Δ log of both figures against the control, of every run whose seed has one."""
    controls = {cell.seed: pair for cell, pair in runs.items() if cell.dose == 0}
    for cell, pair in runs.items():
        if cell.dose != 0 and cell.seed in controls:
            x, y = (math.log(a / b) for a, b in zip(pair, controls[cell.seed], strict=True))
            yield cell, (x, y)


def _mean_and_error(changes: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard error in percent; of one run the error is 0."""
    n = len(changes)
    error = statistics.stdev(changes) / math.sqrt(n) if n > 1 else 0.0
    return 100 * statistics.fmean(changes), 100 * error


def _mark_control(axis: Any) -> None:
    axis.plot(0, 0, "k+", markersize=10, label="λ = 0")
