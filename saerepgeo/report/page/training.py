"""Training on the page: the curves of the event files, and what changed from first to last."""

from collections.abc import Mapping
from typing import Any

from saerepgeo.report.page import wording
from saerepgeo.report.page.plots import Plot, Section, View, axes, lines, text
from saerepgeo.report.page.sources import Curves, Run

FIRST = {
    "val/mse": "mse of held-out text",
    "val/fvu": "fvu of held-out text",
    "val/relative_aedp": "relative AEDP of held-out prompts",
    "val/heldout_items/relative_aedp": "relative AEDP of held-out items",
}
"""Figures of the finding, the first of the plot: error and separability."""
CAVEAT = (
    "One run is one seed, without a control: it shows what happened in it, not what separability "
    "does to the error. The experiment has intervals, controls and a verdict."
)


def section(run: Run) -> Section | None:
    """Return the part of the page; None without curves."""
    if not run.curves:
        return None
    details = [f"{name}: {_sentence(tags)}" for name, tags in list(run.curves.items())[:-1]]
    last = list(run.curves.values())[-1]
    return Section("Training", _sentence(last), details, CAVEAT, [curve_plot(run.curves)])


def _sentence(tags: Mapping[str, Any]) -> str:
    parts = [
        f"{name} went from {wording.number(points[0][1])} to {wording.number(points[-1][1])}"
        f" ({points[-1][1] / points[0][1] - 1:+.2%})"
        for tag, name in FIRST.items()
        if len(points := tags.get(tag, [])) > 1 and points[0][1]
    ]
    last = max(points[-1][0] for points in tags.values())
    if not parts:
        return f"{last} steps, without two validations: nothing to compare."
    return (
        f"By step {last} {wording.joined(parts)}; one run, so there is neither an interval nor "
        "a null, and no cause can be read from it."
    )


def curve_plot(curves: Curves) -> Plot:
    """Return every scalar by step, a line a run."""
    plot = Plot("Training curves", ("figure",))
    tags = sorted({tag for own in curves.values() for tag in own}, key=_order)
    for tag in tags:
        data = []
        for index, (name, own) in enumerate(curves.items()):
            steps, values = zip(*own.get(tag, []), strict=True) if own.get(tag) else ((), ())
            hover = [
                f"{name}, step {step}: {wording.number(value)}"
                for step, value in zip(steps, values, strict=True)
            ]
            data.append(lines(name, index, steps, values, hover))
        n = max(len(trace["x"]) for trace in data)
        note = f"n = {n} values a run, of one seed each. Unit: the figure's own."
        layout = axes("step", text(tag))
        plot.add((tag,), View(data, layout, note, f"{tag} by step"))
    return plot


def _order(tag: str) -> tuple[int, str]:
    first = list(FIRST)
    return (first.index(tag) if tag in first else len(first), tag)
