"""A panel for every metric of many SAEs, against a figure of their reconstruction."""

import math
from collections.abc import Sequence
from typing import Any

from saerepgeo.report.metric_panels import COLUMNS, COUNTS
from saerepgeo.report.palette import look, new_figure
from saerepgeo.report.results import ASIDES, group_rows

Row = dict[str, Any]


def sae_panels(rows: Sequence[Row], against: str) -> Any:
    """Return the figure of all metrics of latents against a metric of the reconstruction.

    A marker for each SAE and concept with its interval as a bar; above a panel the rank correlation
    over all SAEs, concept by concept in the legend's order, where there is one.
    """
    places = {
        r["sae"]: r["value"] for r in rows if (r["space"], r["metric"]) == ("recons", against)
    }
    latents = [row for row in rows if row["space"] == "latents"]
    groups = group_rows(latents, "metric")
    names = [name for (name,) in groups if name not in COUNTS and not name.endswith(ASIDES)]
    concepts = list(dict.fromkeys(row["concept"] for row in latents))
    n_rows = max(1, math.ceil(len(names) / COLUMNS))
    figure = new_figure(3.2 * COLUMNS, 2.4 * n_rows + 0.6)
    axes = figure.subplots(n_rows, COLUMNS, squeeze=False).flatten()
    for axis, name in zip(axes, names, strict=False):
        for row in groups[name,]:
            style = look(concepts.index(row["concept"]))
            _draw(axis, places.get(row["sae"], math.nan), row, style)
        known = [r for r in rows if r["metric"] == f"{name}~{against}" and not r["reason"]]
        of_all = [row for row in known if not row["model"]]  # of several hooks together
        shown = ", ".join(f"{row['value']:+.2f}" for row in of_all or known)
        axis.set_title(f"{name}\nSpearman {shown}" if shown else name, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for number, concept in enumerate(concepts):
        axes[0].plot([], [], linestyle="none", label=concept, **look(number))
    if concepts:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    title = f"{len(places)} SAEs: metrics of the latents by {against} on held-out text"
    figure.suptitle(f"{title}\nbars: 95 % intervals", fontsize=10)
    return figure


def _draw(axis: Any, place: float, row: Row, style: dict[str, str]) -> None:
    axis.plot(place, row["value"], linestyle="none", markersize=3.5, **style)
    if not math.isnan(row["low"]):
        axis.plot([place, place], [row["low"], row["high"]], color=style["color"], linewidth=1)
