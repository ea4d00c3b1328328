"""Many SAEs on the page: each metric against how well they reconstruct; correlations across."""

import math
from collections.abc import Sequence
from typing import Any

from saerepgeo.report.metric_panels import COUNTS
from saerepgeo.report.page import wording
from saerepgeo.report.page.plots import Plot, Section, View, axes, bars, dots
from saerepgeo.report.page.sources import Run
from saerepgeo.report.results import ASIDES, group_rows

Row = dict[str, Any]
RECONS, ACROSS = "recons", "across SAEs"
AGAINST = {
    "fvu": "fraction of variance unexplained, held-out text",
    "l0": "l0: active latents a point, held-out text",
}
CAVEAT = (
    "SAEs differ in many things at once: a correlation across them is no effect of one on the "
    "other. So many were looked at that some intervals leave out 0 by chance."
)


def section(run: Run) -> Section | None:
    """Return the part of the page; None without held-out reconstruction of SAEs."""
    if not any(row["space"] == RECONS for row in run.results):
        return None
    plots = [sae_plot(run.results), beside_residuals(run.results)]
    plots = [plot for plot in plots if plot.views]
    title, details = "SAEs beside each other", [*_of_saes(run.results), *_clear(run.results)]
    return Section(title, finding(run.results), details, CAVEAT, plots)


def finding(rows: Sequence[Row]) -> str:
    """Return how many correlations across SAEs have an interval without 0, and the firmest."""
    across = [row for row in rows if row["space"] == ACROSS]
    defined = [row for row in across if not row["reason"]]
    n_saes = len({row["sae"] for row in rows if row["space"] == RECONS})
    if not defined:
        why = next((row["reason"] for row in across), "there are too few")
        return f"{n_saes} SAEs: whether geometry goes with reconstruction is undecided ({why})."
    clear = [row for row in defined if row["low"] > 0 or row["high"] < 0]
    line = (
        f"{len(clear)} of {len(defined)} rank correlations across {n_saes} SAEs have an interval "
    )
    line += f"without 0, where chance gives about {math.ceil(0.05 * len(defined))}"
    if not clear:
        return f"{line}: undecided whether geometry goes with reconstruction."
    first = max(clear, key=lambda row: abs(row["value"]))
    return f"{line}; the largest is {_correlation(first)}."


def _correlation(row: Row) -> str:
    metric, _, other = row["metric"].partition("~")
    beside = wording.beside_chance(row)
    told = f"{metric} with {other} in {row['concept']}, {wording.figure(row)}, n = {row['n']}"
    return f"{told}, {beside}" if beside else told


def _clear(rows: Sequence[Row]) -> list[str]:
    across = [r for r in rows if r["space"] == ACROSS and not r["reason"]]
    return [f"{_correlation(r)}." for r in across if r["low"] > 0 or r["high"] < 0][:20]


def _of_saes(rows: Sequence[Row]) -> list[str]:
    lines = []
    text = [row for row in rows if row["space"] == RECONS]
    for (sae,), own in group_rows(text, "sae").items():
        figures = {row["metric"]: row for row in own}
        shown = [
            f"{name.replace('_', ' ')} {wording.figure(figures[name])}"
            for name in ("fvu", "l0", "ce_recovered")
            if name in figures
        ]
        lines.append(f"{sae}: {', '.join(shown)} on held-out text.")
    return lines


def sae_plot(rows: Sequence[Row]) -> Plot:
    """Return a metric of the latents against fvu, or l0, of the SAE."""
    plot = Plot("Metrics across SAEs", ("metric", "against"))
    latents = [row for row in rows if row["space"] == "latents"]
    for other, title in AGAINST.items():
        text = {r["sae"]: r["value"] for r in rows if (r["space"], r["metric"]) == (RECONS, other)}
        for (metric,), own in group_rows(latents, "metric").items():
            if metric in COUNTS or metric.endswith(ASIDES):
                continue
            data = []
            for index, ((concept,), group) in enumerate(group_rows(own, "concept").items()):
                x = [text.get(row["sae"], math.nan) for row in group]
                hover = [f"{r['sae']}, {concept}: {wording.figure(r)}, n = {r['n']}" for r in group]
                y = [row["value"] for row in group]
                data.append(dots(concept, index, x, y, hover) | bars(group, index))
            note = f"n = {len(text)} SAEs; bars: 95 % intervals of each. Unit: the metric's own."
            alt = f"{metric} of the latents against {other} of {len(text)} SAEs"
            plot.add((metric, other), View(data, axes(title, metric), note, alt))
    return plot


def beside_residuals(rows: Sequence[Row]) -> Plot:
    """Return a metric of every SAE's latents beside the residuals and random dictionaries."""
    plot = Plot("Each SAE beside the residuals and random dictionaries", ("metric", "concept"))
    own = [row for row in rows if row["space"] not in (RECONS, ACROSS)]
    for (metric, concept), group in group_rows(own, "metric", "concept").items():
        if metric in COUNTS or metric.endswith(ASIDES):
            continue
        data = []
        for index, ((space,), of_space) in enumerate(group_rows(group, "space").items()):
            x = [row["sae"] or row["hook"] for row in of_space]
            hover = [
                f"{name}, {space}: {wording.figure(r)}; {wording.beside_chance(r)}"
                for name, r in zip(x, of_space, strict=True)
            ]
            y = [row["value"] for row in of_space]
            data.append(dots(space, index, x, y, hover) | bars(of_space, index))
        sizes = wording.joined(sorted({f"{row['n']:,}" for row in group}), 4)
        note = f"n = {sizes}; bars: 95 % intervals. Unit: the metric's own."
        alt = f"{metric} of {concept} for every SAE"
        plot.add((metric, concept), View(data, axes("SAE", metric), note, alt))
    return plot
