"""What a figure of the page is: views to choose among, each with its n, units and alt text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from saerepgeo.report.palette import COLORS

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x", "star", "triangle-down")
SYMBOLS_3D = ("circle", "square", "diamond", "circle-open", "square-open", "diamond-open", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")
DIGITS = 5
JOINT = "\x1f"
"""Between the choices that name a view."""


@dataclass
class View:
    """One picture, in plotly's terms, and what is said of it."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]
    note: str
    """n, units, what bars and bands are."""
    alt: str


@dataclass
class Plot:
    """Views of one kind by what is chosen: `{"concept": ("months", "days"), …}`."""

    title: str
    selectors: tuple[str, ...] = ()
    views: dict[str, View] = field(default_factory=dict)

    def add(self, choices: Sequence[str], view: View) -> None:
        """Add the view of these choices, one for every selector."""
        self.views[JOINT.join(choices)] = view

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: no NaN, few digits."""
        return dict(plain(asdict(self)))


@dataclass
class Section:
    """What one case found: a sentence, more of them, what they do not say, and figures."""

    title: str
    finding: str
    details: list[str]
    caveat: str
    plots: list[Plot]


def plain(value: Any) -> Any:
    """Return a value for JSON: numbers of few digits, None for what is no number."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def text(value: Any) -> str:
    """Return text that plotly shows as it is: it reads tags in whatever it draws."""
    shown = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(c if c.isprintable() else " " for c in shown)


def _shown(places: Iterable[Any]) -> list[Any]:
    return [text(place) if isinstance(place, str) else place for place in places]


def color(index: int) -> str:
    """Return the color of group `index`."""
    return COLORS[index % len(COLORS)]


def dots(
    name: str, index: int, x: Any, y: Any, hover: Iterable[str], **more: Any
) -> dict[str, Any]:
    """Return markers of one group, with a text for each; `more` goes to plotly."""
    marker = {"color": color(index), "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8}
    own: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": text(name),
        "x": _shown(x),
        "y": list(y),
    }
    own |= {"marker": marker, "hovertext": [text(each) for each in hover], "hoverinfo": "text"}
    return own | more


def lines(
    name: str, index: int, x: Any, y: Any, hover: Iterable[str], **more: Any
) -> dict[str, Any]:
    """Return a line with markers; color, dash and marker tell groups apart."""
    dash = DASHES[index // len(COLORS) % len(DASHES)]
    line = {"color": color(index), "dash": dash, "width": 2}
    return dots(name, index, x, y, hover) | {"mode": "lines+markers", "line": line} | more


def band(
    index: int, x: Sequence[Any], low: Sequence[float], high: Sequence[float]
) -> dict[str, Any]:
    """Return the area between two lines, in the color of its group."""
    around: dict[str, Any] = {
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
    }
    shade: dict[str, Any] = {
        "line": {"width": 0},
        "mode": "lines",
        "fillcolor": color(index) + "33",
    }
    return around | shade | {"type": "scatter", "hoverinfo": "skip", "showlegend": False}


def bars(rows: Sequence[Mapping[str, Any]], index: int, side: str = "y") -> dict[str, Any]:
    """Return the intervals of rows of the long table as plotly's error bars."""
    up = [row["high"] - row["value"] for row in rows]
    down = [row["value"] - row["low"] for row in rows]
    look = {"color": color(index), "thickness": 1.5, "width": 4}
    return {f"error_{side}": {"type": "data", "array": up, "arrayminus": down} | look}


def axes(x: str, y: str, **more: Any) -> dict[str, Any]:
    """Return a layout with titles of both axes; `more` goes to the layout."""
    return {"xaxis": {"title": {"text": text(x)}}, "yaxis": {"title": {"text": text(y)}}} | more
