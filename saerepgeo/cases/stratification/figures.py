"""Rank against noise: one line a concept, a band over draws."""

from collections import defaultdict
from typing import Any

from saerepgeo.cases.stratification.tensor_ranks import MODES
from saerepgeo.report.palette import line_style, new_figure

SPACE_NAMES = {
    "residuals": "residuals",
    "latents": "effective latents",
    "random": "effective latents of a random dictionary",
}
UNITS = {
    "absolute": "noise (standard deviation, units of the residuals)",
    "relative": "noise (standard deviation, share of the residuals' root mean square)",
}


def rank_figure(rows: list[dict[str, Any]]) -> Any:
    """Return the figure of one model, space and rule: modes in rows, noise scales in columns."""
    scales = list(dict.fromkeys(row["noise_scale"] for row in rows))
    first = rows[0]
    figure = new_figure(5.2 * len(scales), 8.4)
    axes = figure.subplots(len(MODES), len(scales), squeeze=False, sharex="col", sharey="row")
    for i, mode in enumerate(MODES):
        for j, scale in enumerate(scales):
            chosen = [r for r in rows if r["mode"] == mode and r["noise_scale"] == scale]
            _draw(axes[i][j], chosen)
            if j == 0:
                axes[i][j].set_ylabel(f"rank, {mode} mode")
            if i == len(MODES) - 1:
                axes[i][j].set_xlabel(UNITS[scale], fontsize=8)
    n_draws = 1 + max(row["draw"] for row in rows)
    space = SPACE_NAMES[first["space"]]
    figure.suptitle(
        f"{first['model']}: {space}, tolerance {first['tolerance']}\n"
        f"lines: mean of {n_draws} draws; bands: least to largest",
        fontsize=10,
    )
    handles, labels = axes[-1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw(axis: Any, rows: list[dict[str, Any]]) -> None:
    concepts = list(dict.fromkeys(row["concept"] for row in rows))
    for number, concept in enumerate(concepts):
        ranks: dict[float, list[int]] = defaultdict(list)
        for row in rows:
            if row["concept"] == concept:
                ranks[row["noise"]].append(row["rank"])
                n_points = row["n_points"]
        levels = sorted(ranks)
        means = [sum(ranks[level]) / len(ranks[level]) for level in levels]
        style = line_style(number)
        axis.plot(levels, means, label=f"{concept} (n = {n_points})", **style)
        low, high = [min(ranks[x]) for x in levels], [max(ranks[x]) for x in levels]
        axis.fill_between(levels, low, high, color=style["color"], alpha=0.2, linewidth=0)
    positive = [row["noise"] for row in rows if row["noise"] > 0]
    if positive:
        axis.set_xscale("symlog", linthresh=min(positive))
    axis.set_ylim(bottom=0)
