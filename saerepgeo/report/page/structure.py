"""Case 2 on the page: is the arrangement kept, is the dimension; places, trees, spectra, nulls."""

import math
from collections.abc import Sequence
from typing import Any

from saerepgeo.report.metric_panels import COUNTS
from saerepgeo.report.page import wording
from saerepgeo.report.page.plots import Plot, Section, View, axes, bars, color, dots, lines
from saerepgeo.report.page.scenes import scene_plot, space_name, tree_plot
from saerepgeo.report.page.sources import Run
from saerepgeo.report.results import ASIDES, group_rows

Row = dict[str, Any]
FIRST = ("two_nn_within", "procrustes", "relative_aedp", "cluster_count", "mstw", "cka")
"""Metrics that come first; the others follow in their order."""
N_BINS, NULL = 30, "mean of the null"
CAVEAT = (
    "Intervals are 95 %, by leaving out whole prompts; p by permutation, not corrected for the "
    "number of metrics. What is compared is one SAE with the residuals that it reads: whether "
    "training brought it about, only the random dictionaries can say."
)


def section(run: Run) -> Section | None:
    """Return case 2's part of the page; None without its rows."""
    rows = [row for row in run.results if "+" not in row["space"] and row["space"] in SPACES]
    sound = [row for row in rows if row["protocol"] == "sound"]
    if not rows or any(row["space"] == "recons" for row in run.results):
        return None
    concepts = [Concept(own) for own in group_rows(sound, "model", "concept").values()]
    rows.sort(key=_order)
    sound.sort(key=_order)
    order = [concept.name for concept in concepts]
    run.shown.sort(key=lambda each: order.index(each["concept"]) if each["concept"] in order else 0)
    plots = [scene_plot(run.shown), tree_plot(run.shown), metrics_plot(rows), scale_plot(sound)]
    plots += [spectrum_plot(run.shown), null_plot(run.shown, sound)]
    return Section(
        "Case 2: representation structure",
        finding(concepts),
        [line for concept in concepts for line in concept.sentences()],
        CAVEAT,
        [plot for plot in plots if plot.views],
    )


SPACES = ("residuals", "latents", "random", *(f"random {n}" for n in range(1, 100)))


def _order(row: Row) -> tuple[int, int]:
    """Return what puts the figures that are looked at first before the others."""
    metric, space = row["metric"], row["space"]
    place = FIRST.index(metric) if metric in FIRST else len(FIRST)
    return place, SPACES.index(space)


class Concept:
    """Rows of one concept, protocol `sound`, by space and metric; latents of the first SAE."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.name = rows[0]["concept"]
        self.rows: dict[tuple[str, str], Row] = {}
        for row in rows:
            self.rows.setdefault((row["space"], row["metric"]), row)

    def of(self, space: str, metric: str) -> Row | None:
        """Return the row of a metric in a space."""
        return self.rows.get((space, metric))

    @property
    def is_kept(self) -> bool | None:
        """Whether the items' arrangement is nearer than chance; None where it is undefined."""
        row = self.of("latents", "procrustes")
        if row is None or row["reason"] or not math.isfinite(row["p"]):
            return None
        return bool(row["p"] <= wording.ALPHA and row["high"] < row["null"])

    def sentences(self) -> list[str]:
        """Return what can be said of arrangement and dimension."""
        found = []
        row, random = self.of("latents", "procrustes"), self.of("random", "procrustes")
        if row is not None:
            words = {True: "kept", False: "not told from chance, undecided", None: "undecided"}
            line = f"{self.name}: arrangement of the items {words[self.is_kept]}: Procrustes "
            line += f"disparity {wording.figure(row)}"
            line += f" ({wording.beside_chance(row)})" if wording.beside_chance(row) else ""
            found.append(line + _beside_random(row, random) + ".")
        metric, what = "two_nn_within", "intrinsic dimension within items"
        if (after := self.of("latents", metric)) is not None:
            line = wording.moved(self.of("residuals", metric), after, what)
            if (random := self.of("random", metric)) is not None:
                line += f" Random dictionary: {wording.figure(random)}."
            found.append(f"{self.name}: {line}")
        return found


def finding(concepts: Sequence[Concept]) -> str:
    """Return the sentence of the case, with interval and null."""
    known = [concept for concept in concepts if concept.is_kept is not None]
    if not known:
        return "Undecided: no concept has a figure of protocol sound with a null beside it."
    kept = [concept for concept in known if concept.is_kept]
    shown = kept or known
    figures = []
    for concept in shown:
        row = concept.of("latents", "procrustes")
        assert row is not None
        figures.append(f"{concept.name} {wording.figure(row)} ({wording.beside_chance(row)})")
    listed = wording.listed(figures)
    if len(known) == 1:  # named already
        listed = listed.removeprefix(f"{known[0].name} ")
    if not kept:
        return f"That the SAE keeps the items' arrangement cannot be told from chance ({listed})."
    which = f"{len(kept)} of {len(known)} concepts" if len(known) > 1 else kept[0].name
    line = f"The SAE's latents keep how items lie to each other in {which}: "
    return f"{line}Procrustes disparity {listed}."


def _beside_random(row: Row, random: Row | None) -> str:
    if random is None or random["reason"] or row["reason"]:
        return ""
    word = wording.change(random, row)
    told = {"falls": "the SAE's is smaller", "rises": "the SAE's is larger"}
    what = told.get(word or "", "so this cannot be put down to training")
    return f"; a random dictionary has {wording.figure(random)}: {what}"


def metrics_plot(rows: Sequence[Row]) -> Plot:
    """Return every metric by concept and space, with interval and null."""
    plot = Plot("Every metric, with its interval and null", ("metric", "protocol"))
    for (metric, protocol), own in group_rows(rows, "metric", "protocol").items():
        if metric in COUNTS or metric.endswith(ASIDES):
            continue
        data = []
        for index, group in enumerate(group_rows(own, "space", "sae").values()):
            name = space_name(group[0], own)
            hover = [f"{r['concept']}, {name}: {wording.figure(r)}; n = {r['n']}" for r in group]
            x, y = [r["concept"] for r in group], [r["value"] for r in group]
            data.append(dots(name, index, x, y, hover, offsetgroup=index) | bars(group, index))
            data += _crosses(name, index, [row for row in group if math.isfinite(row["null"])])
        for trace in [each for each in data if each["name"] == NULL][1:]:
            trace["showlegend"] = False
        sizes = wording.joined(sorted({f"{r['n']:,}" for r in own}, key=len), 6)
        note = f"n = {sizes}; bars are 95 % intervals. Unit: the metric's own."
        layout = axes("concept", metric, scattermode="group", scattergap=0.5)
        alt = f"{metric} of {len(set(r['concept'] for r in own))} concepts in each space"
        plot.add((metric, protocol), View(data, layout, note, alt))
    return plot


def _crosses(space: str, index: int, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the mean of the null of rows of a space, beside their values."""
    hover = [f"{row['concept']}, {space}: {wording.beside_chance(row)}" for row in rows]
    marker = {"symbol": "x-thin-open", "size": 9, "color": "#777777"}
    about = {"marker": marker, "offsetgroup": index, "legendgroup": NULL, "legendrank": 2000}
    places = [row["concept"] for row in rows], [row["null"] for row in rows]
    return [dots(NULL, index, *places, hover) | about] if rows else []


def scale_plot(rows: Sequence[Row]) -> Plot:
    """Return the intrinsic dimension by the number of neighbors looked at."""
    plot = Plot("Intrinsic dimension by scale (GRIDE)", ("concept",))
    chosen = [row for row in rows if row["metric"].startswith("gride/") and not row["reason"]]
    for (concept,), own in group_rows(chosen, "concept").items():
        data = []
        for index, group in enumerate(group_rows(own, "space", "sae").values()):
            name = space_name(group[0], own)
            x = [int(row["metric"].split("/")[1]) for row in group]
            hover = [f"{name}, k = {k}: {wording.figure(r)}" for k, r in zip(x, group, strict=True)]
            y = [row["value"] for row in group]
            data.append(lines(name, index, x, y, hover) | bars(group, index))
        layout = axes("neighbor k (its distance against that of 2k)", "dimension")
        layout["xaxis"] |= {"type": "log", "dtick": math.log10(2)}
        layout["yaxis"] |= {"rangemode": "tozero"}
        note = f"n = {own[0]['n']:,} points; bars are 95 % intervals; dimensions have no unit."
        plot.add((concept,), View(data, layout, note, f"Dimension by scale, {concept}"))
    return plot


def spectrum_plot(shown: Sequence[dict[str, Any]]) -> Plot:
    """Return the share of variance by principal component."""
    plot = Plot("Spectrum of the points", ("concept",))
    for each in shown:
        data = []
        for index, space in enumerate(each["spaces"]):
            name = space_name(space, each["spaces"])
            x = list(range(1, len(space["spectrum"]) + 1))
            hover = [f"{name}, component {i}: {y:.2%}" for i, y in enumerate(space["spectrum"], 1)]
            data.append(lines(name, index, x, space["spectrum"], hover, mode="lines"))
        layout = axes("principal component", "share of the variance")
        layout["yaxis"] |= {"type": "log", "exponentformat": "power", "dtick": 1}
        sizes = wording.joined(sorted({f"{space['n_points']:,}" for space in each["spaces"]}))
        note = f"n = {sizes} points; shares have no unit; the first {len(x)} components."
        plot.add((each["concept"],), View(data, layout, note, f"Spectra, {each['concept']}"))
    return plot


def null_plot(shown: Sequence[dict[str, Any]], rows: Sequence[Row]) -> Plot:
    """Return what chance gives of each metric, and where the value lies."""
    plot = Plot("Null distributions, with the value", ("concept", "metric", "space"))
    spaces = {(e["concept"], s["space"], s["sae"]): (e, s) for e in shown for s in e["spaces"]}
    tested = {(*_about(r), r["metric"]): r for r in rows}
    for row in sorted(rows, key=lambda row: (_order(row)[0], row["space"] == "residuals")):
        if _about(row) not in spaces or row["reason"]:
            continue
        each, space = spaces[_about(row)]
        if draws := space["nulls"].get(row["metric"]):
            row = tested.get((*_about(row), f"{row['metric']}/tested"), row)
            name, metric = space_name(space, each["spaces"]), row["metric"].split("/tested")[0]
            plot.add((each["concept"], metric, name), _null(metric, name, draws, row))
    return plot


def _about(row: Row) -> tuple[str, str, str]:
    return row["concept"], row["space"], row["sae"]


def _null(metric: str, where: str, draws: Sequence[float], row: Row) -> View:
    low, high = min(draws), max(draws)
    width = (high - low) / N_BINS or abs(low) * 0.01 or 1.0
    counts = [0] * (N_BINS + 1)
    for draw in draws:
        counts[int((draw - low) / width)] += 1
    middles = [low + (i + 0.5) * width for i in range(len(counts))]
    hover = [f"{n} draws near {wording.number(x)}" for n, x in zip(counts, middles, strict=True)]
    histogram = {"type": "bar", "x": middles, "y": counts, "width": width, "name": "draws"}
    histogram |= {"marker": {"color": color(5)}, "hovertext": hover, "hoverinfo": "text"}
    value = dots("value", 1, [row["value"]] * 2, [0, max(counts)], [wording.figure(row)] * 2)
    value |= {"mode": "lines", "line": {"color": color(1), "width": 3}}
    chance = wording.beside_chance(row)
    note = f"{len(draws)} draws of the null (n = {row['n']:,}); {chance}. Unit: the metric's."
    alt = f"Null distribution of {metric}, {where}: value {wording.figure(row)}, {chance}"
    layout = axes(metric, "draws", bargap=0)
    ends = min(low, row["value"]), max(high, row["value"])
    room = 0.05 * (ends[1] - ends[0]) + width
    layout["xaxis"] |= {"range": [ends[0] - room, ends[1] + room]}
    return View([histogram, value], layout, note, alt)
