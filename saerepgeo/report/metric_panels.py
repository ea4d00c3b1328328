"""A panel for every metric: its value, interval and null, by concept and space."""

import math
from collections.abc import Sequence
from typing import Any

from saerepgeo.report.palette import look, new_figure
from saerepgeo.report.results import ASIDES, group_rows

Row = dict[str, Any]
COUNTS = ("n_items", "n_points", "n_merged")
COLUMNS = 4
NULL = {"color": "0.4", "marker": "x"}


def metric_panels(title: str, rows: Sequence[Row]) -> Any:
    """Return the figure of all metrics in rows of the long table, one protocol's.

    A marker for each concept and space, its interval as a bar, the mean of its null as a cross.
    """
    groups = group_rows(rows, "metric")
    names = [name for (name,) in groups if name not in COUNTS and not name.endswith(ASIDES)]
    concepts = list(dict.fromkeys(row["concept"] for row in rows))
    spaces = list(dict.fromkeys((row["space"], row["sae"]) for row in rows))
    n_rows = max(1, math.ceil(len(names) / COLUMNS))
    height = 0.9 + 0.16 * len(concepts) * len(spaces)
    figure = new_figure(3.4 * COLUMNS, height * n_rows + 0.8)
    axes = figure.subplots(n_rows, COLUMNS, squeeze=False, sharey=True).flatten()
    for axis, name in zip(axes, names, strict=False):
        for row in groups[name,]:
            number = spaces.index((row["space"], row["sae"]))
            offset = 0.8 * (number + 0.5) / len(spaces) - 0.4
            _draw(axis, row, concepts.index(row["concept"]) + offset, look(number))
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    axes[0].set_yticks(range(len(concepts)), concepts)
    axes[0].invert_yaxis()
    looks = [(" ".join(space).strip(), look(number)) for number, space in enumerate(spaces)]
    for label, style in (*looks, ("mean of the null", NULL)):
        axes[0].plot([], [], linestyle="none", label=label, **style)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.suptitle(f"{title}\nbars: 95 % intervals", fontsize=10)
    return figure


def _draw(axis: Any, row: Row, height: float, style: dict[str, str]) -> None:
    point = {"linestyle": "none", "markersize": 3.5}
    axis.plot(row["value"], height, **point, **style)
    if not math.isnan(row["low"]):
        axis.plot([row["low"], row["high"]], [height, height], color=style["color"], linewidth=1)
    if not math.isnan(row["null"]):
        axis.plot(row["null"], height, **point, **NULL)
