"""Figures of case 1: ranks, and any other metric, against noise; a band over draws."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from saerepgeo.cases.stratification.table import condition_of
from saerepgeo.geometry.unfoldings import MODES
from saerepgeo.report.palette import line_style, new_figure

Row = dict[str, Any]
SPACE_NAMES = {
    "residuals": "residuals",
    "latents": "effective latents",
    "random": "effective latents of a random dictionary",
}
UNITS = {
    "absolute": "noise (standard deviation, units of the residuals)",
    "relative": "noise (standard deviation, share of the residuals' root mean square)",
}


def rank_figure(rows: list[Row]) -> Any:
    """Return the figure of one model, space and rule: modes in rows, noise scales in columns."""
    panels = {f"rank, {mode} mode": [r for r in rows if r["mode"] == mode] for mode in MODES}
    first = rows[0]
    title = f"{first['model']}: {SPACE_NAMES.get(first['space'], first['space'])}"
    return _figure(f"{title}, tolerance {first['tolerance']}", panels, "rank")


def metric_by_noise(rows: Sequence[Row]) -> Any:
    """Return the figure of a metric of the long table: spaces in rows, scales in columns."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        space, condition = condition_of(row["space"])
        name = f"{space} {row['sae']}".strip()
        panels.setdefault(name, []).append({**row, **condition, "n_points": row["n"]})
    return _figure(f"{rows[0]['model']}: {rows[0]['metric']}", panels, "value")


def _figure(title: str, panels: dict[str, list[Row]], column: str) -> Any:
    rows = [row for own in panels.values() for row in own]
    scales = list(dict.fromkeys(row["noise_scale"] for row in rows))
    figure = new_figure(5.2 * len(scales), 2.8 * len(panels))
    axes = figure.subplots(len(panels), len(scales), squeeze=False, sharex="col", sharey="row")
    for i, (name, own) in enumerate(panels.items()):
        for j, scale in enumerate(scales):
            _draw(axes[i][j], [row for row in own if row["noise_scale"] == scale], column)
            if j == 0:
                axes[i][j].set_ylabel(name)
            if i == len(panels) - 1:
                axes[i][j].set_xlabel(UNITS[scale], fontsize=8)
    n_draws = 1 + max(row["draw"] for row in rows)
    bands = f"lines: mean of {n_draws} draws; bands: least to largest"
    figure.suptitle(f"{title}\n{bands}", fontsize=10)
    handles, labels = axes[-1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw(axis: Any, rows: list[Row], column: str) -> None:
    for number, concept in enumerate(dict.fromkeys(row["concept"] for row in rows)):
        values: dict[float, list[float]] = defaultdict(list)
        own = [row for row in rows if row["concept"] == concept]
        for row in own:
            values[row["noise"]].append(row[column])
        levels = sorted(values)
        means = [sum(values[level]) / len(values[level]) for level in levels]
        style = line_style(number)
        axis.plot(levels, means, label=f"{concept} (n = {own[0]['n_points']})", **style)
        low, high = [min(values[x]) for x in levels], [max(values[x]) for x in levels]
        axis.fill_between(levels, low, high, color=style["color"], alpha=0.2, linewidth=0)
    positive = [row["noise"] for row in rows if row["noise"] > 0]
    if positive:
        axis.set_xscale("symlog", linthresh=min(positive))
    axis.set_ylim(bottom=0)
