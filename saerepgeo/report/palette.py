"""Colors that the color-blind tell apart, and line styles for those who see none."""

from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
"""Okabe & Ito (2008), with an olive for the yellow that is too pale on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h")
DASHES = ("-", "--", ":")


def look(number: int) -> dict[str, str]:
    """Return color and marker of group `number`; no two of the first 24 are the same."""
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


def line_style(number: int) -> dict[str, Any]:
    """Return color, dashes and marker of line `number`."""
    dashes = DASHES[number // len(COLORS) % len(DASHES)]
    return {**look(number), "linestyle": dashes, "markersize": 3.5, "linewidth": 1.4}


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of so many inches that no window or global state holds."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
