"""Case 1 on the page: ranks under noise, beside those of a random dictionary; spectra."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from saerepgeo.report.page import wording
from saerepgeo.report.page.plots import JOINT, Plot, Section, View, axes, band, lines
from saerepgeo.report.page.sources import Run, spectra
from saerepgeo.report.results import group_rows

Row = dict[str, Any]
RANKS = "rank_by_noise.csv"
FIGURES = ("rank", "effective_rank", "stable_rank", "participation_ratio", "n_active")
MODE, N_VALUES, N_LEVELS = "feature", 60, 6
CAVEAT = (
    "Bands go from the least to the largest of the draws of noise; they are no intervals over "
    "prompts or SAEs. The null is a random dictionary of the same shape and sparsity, one draw."
)
UNITS = {
    "absolute": "noise, in units of the residuals",
    "relative": "noise, share of the residuals' root mean square",
}


def section(run: Run) -> Section | None:
    """Return case 1's part of the page; None without its table."""
    rows = [_numbers(row) for row in run.rows.get(RANKS, [])]
    if not rows:
        return None
    details = [_sentence(own) for own in group_rows(rows, "model", "concept").values()]
    plots = [rank_plot(rows), spectrum_plot(run)]
    plots = [plot for plot in plots if plot.views]
    return Section("Case 1: stratified manifold", finding(rows), details, CAVEAT, plots)


def finding(rows: Sequence[Row]) -> str:
    """Return the sentence of the case: effective rank against a random dictionary's."""
    pairs = []
    for (_, concept), own in group_rows(rows, "model", "concept").items():
        before, null = (_least(own, space) for space in ("latents", "random"))
        if before and null:
            pairs.append((concept, before, null))
    if not pairs:
        return "Undecided: there is no random dictionary beside the latents."
    lower = [pair for pair in pairs if pair[1][2] < pair[2][1]]
    shown = [f"{c} {_spread(x)}, random {_spread(null)}" for c, x, null in (lower or pairs)]
    listed = wording.listed(shown)
    if not lower:
        return f"The latents' effective rank is not below that of a random dictionary ({listed})."
    return (
        "The latents have a lower effective rank than those of a random dictionary in "
        f"{len(lower)} of {len(pairs)} concepts at the least noise ({listed}; ranges of the draws)."
    )


def _least(rows: Sequence[Row], space: str) -> tuple[float, float, float] | None:
    """Return mean, least and largest effective rank at the least noise that has several draws."""
    own = [r for r in rows if r["space"] == space and r["mode"] == MODE and r["noise"] > 0]
    if not own:
        return None
    least = min(row["noise"] for row in own)
    values = [row["effective_rank"] for row in own if row["noise"] == least]
    return fmean(values), min(values), max(values)


def _spread(values: tuple[float, float, float]) -> str:
    return wording.number(values[0]) + wording.interval(*values[1:])


def _sentence(rows: Sequence[Row]) -> str:
    first = next(row for row in rows if row["mode"] == MODE)
    rule, scale = first["tolerance"], first["noise_scale"]
    counts = {}
    for space in ("residuals", "latents", "random"):
        own = [
            row["rank"]
            for row in rows
            if (row["space"], row["mode"], row["tolerance"]) == (space, MODE, rule)
            and row["noise_scale"] == scale
        ]
        counts[space] = len(set(own))
    told = "so the count does not show that training stratifies"
    if counts["latents"] > counts["random"] > 0:
        told = "more than chance, from one draw of it: undecided"
    return (
        f"{rows[0]['concept']}: under {scale} noise the latents visit {counts['latents']} ranks, "
        f"the residuals {counts['residuals']}, a random dictionary {counts['random']} "
        f"(mode {MODE}, tolerance {rule}): {told}."
    )


def rank_plot(rows: Sequence[Row]) -> Plot:
    """Return every measure of rank against noise, a line a concept."""
    plot = Plot("Rank against noise", ("measure", "space", "mode", "noise"))
    groups = group_rows(rows, "space", "mode", "noise_scale", "tolerance")
    for (space, mode, scale, rule), own in groups.items():
        for measure in FIGURES:
            name = f"rank ({rule})" if measure == "rank" else measure.replace("_", " ")
            choices = name, space, mode, scale
            if JOINT.join(choices) in plot.views:
                continue
            data: list[dict[str, Any]] = []
            for index, ((concept,), of_one) in enumerate(group_rows(own, "concept").items()):
                data += _line(concept, index, of_one, measure)
            layout = axes(UNITS.get(scale, scale), name)
            layout["xaxis"] |= {"type": "category"}
            layout["yaxis"] |= {"rangemode": "tozero"}
            sizes = wording.joined(sorted({f"{r['n_points']:,.0f}" for r in own}, key=len), 9)
            n_draws = 1 + int(max(row["draw"] for row in own))
            note = f"n = {sizes} points; mean of {n_draws} draws, band from least to largest. "
            note += "Ranks and counts have no unit."
            plot.add(choices, View(data, layout, note, f"{name} of the {space} against noise"))
    return plot


def _line(concept: str, index: int, rows: Sequence[Row], measure: str) -> list[dict[str, Any]]:
    draws = {level: own for (level,), own in sorted(group_rows(rows, "noise").items())}
    values = [[row[measure] for row in own] for own in draws.values()]
    x = [f"{level:g}" for level in draws]
    hover = [
        f"{concept}, noise {level}: {wording.number(fmean(v))} (n = {rows[0]['n_points']:,.0f})"
        for level, v in zip(x, values, strict=True)
    ]
    line = lines(concept, index, x, [fmean(v) for v in values], hover, legendgroup=concept)
    around = band(index, x, [min(v) for v in values], [max(v) for v in values])
    return [around | {"legendgroup": concept}, line]


def spectrum_plot(run: Run) -> Plot:
    """Return singular values by their number, a line a level of noise."""
    plot = Plot("Spectra under noise", ("concept", "space", "noise"))
    for stem, tensors in spectra(run.folder).items():
        groups: dict[tuple[str, str], list[tuple[float, Any]]] = {}
        for key, values in tensors.items():
            space, mode, scale, level = key.rsplit("/", 3)
            if mode == MODE:
                groups.setdefault((space, scale), []).append((float(level), values[0]))
        for (space, scale), own in groups.items():
            own = sorted(own, key=lambda pair: pair[0])
            own = own[:: math.ceil(len(own) / N_LEVELS)]
            data = [_spectrum(index, *pair) for index, pair in enumerate(own)]
            layout = axes("number of the singular value", "singular value (residual units)")
            for axis in ("xaxis", "yaxis"):
                layout[axis] |= {"type": "log", "exponentformat": "power"}
            note = f"n = {len(own[0][1]):,} singular values, mode {MODE}, first draw of the noise."
            plot.add((stem, space, scale), View(data, layout, note, f"Spectra, {stem}, {space}"))
    return plot


def _spectrum(index: int, level: float, values: Any) -> dict[str, Any]:
    kept = [float(v) for v in values.tolist() if v > 0]
    if not kept:
        return lines(f"noise {level:g}", index, [], [], [])
    last = len(kept) - 1
    numbers = sorted(
        {round(math.expm1(math.log1p(last) * i / N_VALUES)) for i in range(N_VALUES + 1)}
    )
    numbers = [min(number, last) for number in numbers]
    y = [kept[number] for number in numbers]
    x = [number + 1 for number in numbers]
    hover = [f"noise {level:g}, value {i}: {wording.number(v)}" for i, v in zip(x, y, strict=True)]
    return lines(f"noise {level:g}", index, x, y, hover)


def _numbers(row: dict[str, str]) -> Row:
    texts = ("model", "concept", "space", "mode", "noise_scale", "tolerance")
    return {name: value if name in texts else float(value or "nan") for name, value in row.items()}
