"""Case 3's experiment: the verdicts as they were judged, dose and response, runs one by one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from saerepgeo.report.page import wording
from saerepgeo.report.page.plots import Plot, Section, View, axes, dots, lines
from saerepgeo.report.page.sources import Run
from saerepgeo.report.results import group_rows

Row = Mapping[str, Any]
POOLED = "pooled"
CAVEAT = (
    "Verdicts are of the runs of this experiment: seeds (data order and held-out items) are the "
    "units, the SAE is one. An effect is of the dose on both figures; where shuffled labels move "
    "the error as far as true ones, it is not separability's own."
)


def section(run: Run) -> Section | None:
    """Return the experiment's part of the page; None without its verdicts."""
    verdicts, contrasts = run.rows.get("verdicts.csv", []), run.rows.get("contrasts.csv", [])
    if not verdicts:
        return None
    details = [f"{_where(row)}: {row['sentence']}." for row in verdicts]
    plots = [dose_plot(contrasts), runs_plot(run.rows.get("finetune_results.csv", []), verdicts)]
    plots = [plot for plot in plots if plot.views]
    title = "Case 3: the experiment"
    return Section(title, finding(verdicts, contrasts), details, CAVEAT, plots)


def finding(verdicts: Sequence[Row], contrasts: Sequence[Row]) -> str:
    """Return the pooled verdicts on the primary endpoint, with the control beside them."""
    first = verdicts[0]["error"]
    main = [row for row in verdicts if row["concept"] == POOLED and row["error"] == first]
    lines_of = [_verdict(row, contrasts) for row in main]
    return " ".join(lines_of) or "Undecided: there is no verdict on all concepts together."


def _verdict(row: Row, contrasts: Sequence[Row]) -> str:
    name, sentence = row["regularizer"], row["sentence"].split(": ", 1)[-1]
    if row["verdict"].startswith("effect"):
        word = "raises" if float(row["slope"]) > 0 else "lowers"
        slope = wording.number(float(row["slope"]), "+")
        slope += wording.interval(float(row["slope_low"]), float(row["slope_high"]), "+")
        line = f"{name}: in these runs more separability {word} the error ({_where(row)}), "
        line += f"elasticity {slope}, p = {wording.number(float(row['p_adjusted']))} adjusted, "
        line += f"{row['n_seeds']} seeds"
    else:
        line = f"{name}: {sentence}"
    return f"{line}{_control(name, row, contrasts)}."


def _control(regularizer: str, verdict: Row, contrasts: Sequence[Row]) -> str:
    """Return what shuffled labels do to the error at the same dose."""
    error, _, split = verdict["error"].partition("/")
    shown = [
        row
        for row in contrasts
        if (row["regularizer"], row["labels"], row["figure"], row["split"])
        == (regularizer, "shuffled", error, split)
    ]
    if not shown:
        return "; no run with shuffled labels stands beside it"
    parts = [
        f"{row['concept']} {wording.number(float(row['difference']), '+')}"
        + wording.interval(float(row["low"]), float(row["high"]), "+")
        for row in shown
    ]
    return f"; shuffled labels change log {error} by {wording.joined(parts, 3)}"


def _where(row: Row) -> str:
    return str(row["error"]).replace("_", " ").replace("/", " of ")


def dose_plot(contrasts: Sequence[Row]) -> Plot:
    """Return each figure's change against λ = 0 by dose, true and shuffled labels."""
    plot = Plot("Dose and response", ("figure", "concept", "split"))
    own = [row for row in contrasts if row["against"] == "dose 0"]
    for (figure, concept, split), rows in group_rows(own, "figure", "concept", "split").items():
        data = []
        arms = group_rows(rows, "regularizer", "labels")
        for index, ((regularizer, labels), arm) in enumerate(arms.items()):
            arm = sorted(arm, key=lambda row: float(row["dose"]))
            x, y = ([float(row[name]) for row in arm] for name in ("dose", "difference"))
            ends = [(float(row["low"]), float(row["high"])) for row in arm]
            hover = [
                f"{regularizer}, {labels} labels, λ = {dose:+g}: {wording.number(value, '+')}"
                f"{wording.interval(*end, '+')}, n = {row['n_seeds']}"
                for dose, value, end, row in zip(x, y, ends, arm, strict=True)
            ]
            error = {"type": "data", "array": [e[1] - v for e, v in zip(ends, y, strict=True)]}
            error["arrayminus"] = [v - e[0] for e, v in zip(ends, y, strict=True)]
            name = f"{regularizer}, {labels} labels"
            data.append(lines(name, index, x, y, hover, error_y=error))
        layout = axes("dose λ", f"Δ log {figure} against λ = 0")
        units = max(int(float(row["n_seeds"])) for row in rows)
        note = f"n = {units} seeds, each against its own λ = 0; bars: 95 % over seeds. No unit."
        plot.add((figure, concept, split), View(data, layout, note, f"{figure} by dose, {concept}"))
    return plot


def runs_plot(rows: Sequence[Row], verdicts: Sequence[Row]) -> Plot:
    """Return every run's change of error against its change of separability."""
    plot = Plot("Every run against its control", ("regularizer", "concept"))
    separability, error = verdicts[0]["separability"], verdicts[0]["error"].partition("/")[0]
    held = [row for row in rows if row["split"] == "heldout_items"]
    controls = {(r["seed"], r["concept"]): r for r in held if float(r["dose"]) == 0}
    moved = [row for row in held if float(row["dose"]) != 0]
    for (regularizer, concept), own in group_rows(moved, "regularizer", "concept").items():
        data, n = [], 0
        for index, ((dose, labels), arm) in enumerate(group_rows(own, "dose", "labels").items()):
            pairs = [(row, controls.get((row["seed"], concept))) for row in arm]
            points = [
                (_log_ratio(row, control, separability), _log_ratio(row, control, error), row)
                for row, control in pairs
                if control is not None
            ]
            name = f"λ = {float(dose):+g}" + ("" if labels == "given" else ", shuffled labels")
            hover = [
                f"{name}, seed {r['seed']}: {wording.number(x, '+')}, {wording.number(y, '+')}"
                for x, y, r in points
            ]
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            n += len(points)
            data.append(dots(name, index, xs, ys, hover))
        layout = axes(f"Δ log {separability}, held-out items", f"Δ log {error}, held-out items")
        note = f"n = {n} runs, each against λ = 0 of its own seed, which is the origin. No unit."
        alt = f"Change of {error} against change of {separability}, {concept}, {regularizer}"
        plot.add((regularizer, concept), View(data, layout, note, alt))
    return plot


def _log_ratio(row: Row, control: Row, figure: str) -> float:
    values = [float(each.get(figure) or "nan") for each in (row, control)]
    if not all(math.isfinite(value) and value > 0 for value in values):
        return math.nan
    return math.log(values[0] / values[1])
