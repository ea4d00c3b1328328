"""A panel for every metric: its value, interval and null, by concept and space."""

import math
from collections.abc import Sequence
from typing import Any

from saerepgeo.report.palette import COLORS, MARKERS, new_figure

Row = dict[str, Any]
COUNTS = ("n_items", "n_points", "n_merged")
COLUMNS = 4


def metric_panels(title: str, rows: Sequence[Row]) -> Any:
    """Return the figure of all metrics in rows of the long table, one protocol's.

    A marker for each concept and space, its interval as a bar, the mean of its null as a cross.
    """
    names = [name for name in dict.fromkeys(row["metric"] for row in rows) if name not in COUNTS]
    names = [name for name in names if not name.endswith(("/tested", "/beside_random"))]
    concepts = list(dict.fromkeys(row["concept"] for row in rows))
    spaces = list(dict.fromkeys((row["space"], row["sae"]) for row in rows))
    n_rows = max(1, math.ceil(len(names) / COLUMNS))
    height = 0.9 + 0.16 * len(concepts) * len(spaces)
    figure = new_figure(3.4 * COLUMNS, height * n_rows + 0.8)
    axes = figure.subplots(n_rows, COLUMNS, squeeze=False, sharey=True).flatten()
    for axis, name in zip(axes, names, strict=False):
        own = {(r["concept"], r["space"], r["sae"]): r for r in rows if r["metric"] == name}
        for number, space in enumerate(spaces):
            for place, concept in enumerate(concepts):
                row = own.get((concept, *space))
                if row is not None:
                    _draw(axis, row, place + 0.8 * (number + 0.5) / len(spaces) - 0.4, number)
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    axes[0].set_yticks(range(len(concepts)), concepts)
    axes[0].invert_yaxis()
    looks = [(" ".join(space).strip(), *_look(number)) for number, space in enumerate(spaces)]
    for label, marker, color in (*looks, ("mean of the null", "x", "0.4")):
        axes[0].plot([], [], marker, color=color, label=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.suptitle(f"{title}\nbars: 95 % intervals", fontsize=10)
    return figure


def _draw(axis: Any, row: Row, height: float, number: int) -> None:
    marker, color = _look(number)
    axis.plot(row["value"], height, marker, color=color, markersize=3.5)
    if row["low"] == row["low"]:
        axis.plot([row["low"], row["high"]], [height, height], color=color, linewidth=1)
    if row["null"] == row["null"]:
        axis.plot(row["null"], height, "x", color="0.4", markersize=3.5)


def _look(number: int) -> tuple[str, str]:
    return MARKERS[number % len(MARKERS)], COLORS[number % len(COLORS)]
