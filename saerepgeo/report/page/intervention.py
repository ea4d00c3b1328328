"""Case 3 on latents: what shifting the items' centroids costs, beside random displacements."""

import math
from collections.abc import Sequence
from typing import Any

from saerepgeo.report.page import wording
from saerepgeo.report.page.plots import Plot, Section, View, axes, band, lines
from saerepgeo.report.page.sources import Run
from saerepgeo.report.results import group_rows

Row = dict[str, Any]
TABLE = "intervention_analysis_results_icd_monge.csv"
SHIFT, RANDOM = "centroid_shift", "random_direction"
TEXTS = ("concept", "model", "intervention", "loss_type", "protocol")
CAVEAT = (
    "What moves here are latents of one SAE, at the points that name the items: it says what that "
    "costs these reconstructions, and nothing of other SAEs or of how separability arises in "
    "training. Intervals are 95 %, over items; the band is the range of 95 % of random "
    "displacements of the same length."
)


def section(run: Run) -> Section | None:
    """Return the part of the page; None without rows of protocol `sound`."""
    rows = [_numbers(row) for row in run.rows.get(TABLE, []) if row["protocol"] == "sound"]
    if not rows:
        return None
    details = [
        line
        for own in group_rows(rows, "model", "concept", "loss_type").values()
        for line in _sentences(own)
    ]
    plots = [plot for plot in (shift_plot(rows, run),) if plot.views]
    return Section("Case 3: shifting latents", finding(rows), details, CAVEAT, plots)


def finding(rows: Sequence[Row]) -> str:
    """Return the sentence of the case: does shifting apart cost error, against random shifts?"""
    counts: dict[str, list[str]] = {"raises": [], "lowers": [], "undecided": []}
    for (concept, loss), own in group_rows(rows, "concept", "loss_type").items():
        shift, control = _widest(own)
        if shift is not None and control is not None and loss == "AEDP":
            counts[_word(shift)].append(f"{concept} {_cost(shift, control)}")
    told = max(counts, key=lambda word: len(counts[word]))
    if not any(counts.values()):
        return "Undecided: there is no α above 1 with a control beside it."
    n = sum(map(len, counts.values()))
    listed = wording.listed(counts[told])
    if told == "undecided":
        return f"Whether moving the items apart changes their error is undecided ({listed})."
    return (
        f"Moving the items' centroids apart {told} the error of their own points in "
        f"{len(counts[told])} of {n} concepts: {listed}."
    )


def _widest(rows: Sequence[Row]) -> tuple[Row | None, Row | None]:
    """Return the shift at the largest α above 1, and its control."""
    last = max((row["scale_factor"] for row in rows), default=0.0)
    found: dict[str, Row] = {
        row["intervention"]: row for row in rows if row["scale_factor"] == last > 1
    }
    return found.get(SHIFT), found.get(RANDOM)


def _word(row: Row) -> str:
    if row["mse_change_low"] > 0:
        return "raises"
    return "lowers" if row["mse_change_high"] < 0 else "undecided"


def _cost(shift: Row, control: Row) -> str:
    change = wording.number(shift["mse_change"], "+")
    change += wording.interval(shift["mse_change_low"], shift["mse_change_high"], "+")
    random = wording.number(control["mse_loss"])
    random += wording.interval(control["mse_low"], control["mse_high"])
    return (
        f"{change} of {wording.number(shift['mse_original'])} at α = {shift['scale_factor']:g} "
        f"(mse {wording.number(shift['mse_loss'])}; random directions {random}, "
        f"p = {wording.number(control['p'])})"
    )


def _sentences(rows: Sequence[Row]) -> list[str]:
    controls = {row["scale_factor"]: row for row in rows if row["intervention"] == RANDOM}
    found = []
    for row in rows:
        alpha = row["scale_factor"]
        if row["intervention"] == SHIFT and alpha in (0.5, 1.5) and alpha in controls:
            word = {"raises": "costs error", "lowers": "saves error", "undecided": "is undecided"}
            found.append(
                f"{row['concept']}, {row['loss_type']}: distances × {alpha:g} {word[_word(row)]}: "
                f"{_cost(row, controls[alpha])}."
            )
    return found


def shift_plot(rows: Sequence[Row], run: Run) -> Plot:
    """Return the error against α, with the band of random displacements."""
    plot = Plot("Error under shifted centroids, beside random directions", ("concept", "loss"))
    for (concept, loss), own in group_rows(rows, "concept", "loss_type").items():
        shift = sorted((r for r in own if r["intervention"] == SHIFT), key=_alpha)
        control = sorted((r for r in own if r["intervention"] == RANDOM), key=_alpha)
        data: list[dict[str, Any]] = []
        if control:
            x = [row["scale_factor"] for row in control]
            data.append(
                band(1, x, [r["mse_low"] for r in control], [r["mse_high"] for r in control])
            )
            y = [row["mse_loss"] for row in control]
            hover = [
                f"random, α = {r['scale_factor']:g}: {wording.number(r['mse_loss'])}"
                for r in control
            ]
            data.append(lines("random directions", 1, x, y, hover))
        x, y = [row["scale_factor"] for row in shift], [row["mse_loss"] for row in shift]
        hover = [f"{concept}, α = {r['scale_factor']:g}: {_words(r)}" for r in shift]
        up = [row["mse_change_high"] - row["mse_change"] for row in shift]
        down = [row["mse_change"] - row["mse_change_low"] for row in shift]
        error = {"error_y": {"type": "data", "array": up, "arrayminus": down, "width": 4}}
        data.append(lines("centroids shifted", 0, x, y, hover) | error)
        layout = axes("α: distances asked for, in units of the SAE's own", "mse (residual units²)")
        n_draws = next((int(r["n_draws"]) for r in control if math.isfinite(r["n_draws"])), 0)
        note = (
            f"n = {shift[0]['n_points']:,.0f} points, {shift[0]['n_clusters']:,.0f} items; bars: "
            f"95 % interval of the change against α = 1; band: 95 % of {n_draws} random draws. "
            "Unit: squared units of the residuals."
        )
        plot.add((concept, loss), View(data, layout, note, f"Error against α, {concept}, {loss}"))
    return plot


def _alpha(row: Row) -> float:
    return float(row["scale_factor"])


def _words(row: Row) -> str:
    change = wording.number(row["mse_change"], "+")
    change += wording.interval(row["mse_change_low"], row["mse_change_high"], "+")
    return f"mse {wording.number(row['mse_loss'])}, change {change}"


def _numbers(row: dict[str, str]) -> Row:
    return {name: value if name in TEXTS else float(value or "nan") for name, value in row.items()}
