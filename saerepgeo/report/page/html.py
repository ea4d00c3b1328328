"""The page as one file: sentences and facts as text, figures and tables packed, nothing fetched.

Text goes through Jinja's escaping; what scripts read is packed as base64, which cannot close an
element. The page's own policy (CSP) lets run the two scripts that it was written with, by their
sums, and nothing be loaded.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from saerepgeo.files import write_bytes
from saerepgeo.report.page import (
    comparison,
    experiment,
    intervention,
    stratification,
    structure,
    training,
)
from saerepgeo.report.page.plots import JOINT, Section
from saerepgeo.report.page.sources import PageError, Run, read_run
from saerepgeo.report.results import RESULTS

PAGE = "report.html"
MAX_BYTES = 6_000_000
RESERVE = 200_000
"""Of these for sentences, facts and settings."""
CASES = (comparison, stratification, structure, intervention, experiment, training)
DARK = {"#0072B2": "#5AA9E6", "#000000": "#F2F2F2", "#999933": "#D6D66B", "#D55E00": "#FF8A3D"}
"""Colors of the palette that are too dark on black, and what stands for them."""


def write_page(folders: Sequence[Path], path: Path) -> Path | None:
    """Write the page of some runs' folders to `path`; None, and no page, where they hold nothing.

    Raises PageError where a file cannot be read, DiskError where the page cannot be written.
    """
    runs = [run for run in map(read_run, folders) if not run.is_empty]
    if not runs:
        return None
    write_bytes(path, page(runs).encode())
    return path


def page(runs: Sequence[Run]) -> str:
    """Return the page of runs as HTML of at most `MAX_BYTES`."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    plotly = _packed_plotly()
    of_runs = [(run, [s for case in CASES if (s := case.section(run)) is not None]) for run in runs]
    room = MAX_BYTES - RESERVE - len(plotly)
    figures, n_left_out = _figures([s for _, own in of_runs for s in own], room // 2)
    tables = _tables(runs, room - len(figures))
    script = "\n".join(_own(f"{name}.js") for name in ("figures", "table", "start"))
    sums = [hashlib.sha256(text.encode()).digest() for text in (script, _plotly())]
    about = [_about(run, sections) for run, sections in of_runs]
    models = list(dict.fromkeys(model for each in about for model in each["models"]))
    template = Environment(
        loader=PackageLoader("saerepgeo.report.page", ""), autoescape=True, trim_blocks=True
    ).get_template("page.html")
    return template.render(
        runs=about,
        title=", ".join(models or [each["name"] for each in about]),
        tables=tables,
        n_left_out=n_left_out,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(_own("page.css")),
        script=Markup(script),
        sums=Markup(" ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in sums)),
        plotly=plotly,
        figures=figures,
    )


def _about(run: Run, sections: Sequence[Section]) -> dict[str, Any]:
    facts = run.facts
    seeds = sorted({str(row["seed"]) for row in run.results})
    settings = facts.get("settings") or run.settings
    return {
        "name": run.folder.resolve().name,
        "models": list(dict.fromkeys(row["model"] for row in run.results if row["model"])),
        "folder": str(run.folder),
        "sections": sections,
        "command": facts.get("command"),
        "seconds": facts.get("seconds"),
        "finished": facts.get("finished"),
        "seeds": ", ".join(seeds) or _seed(settings),
        "versions": facts.get("versions", {}),
        "machine": facts.get("machine", ""),
        "settings": settings,
        "files": sorted(run.tables),
    }


def _seed(settings: str) -> str:
    try:
        found = yaml.safe_load(settings) if settings else None
    except yaml.YAMLError:
        return ""
    return str(found.get("seed_everything", "")) if isinstance(found, dict) else ""


def _figures(sections: Sequence[Section], room: int) -> tuple[str, int]:
    """Return all figures, packed, and how many of the largest had to be left out."""
    plots = [plot for section in sections for plot in section.plots]
    shown = {number: plot.as_dict() for number, plot in enumerate(plots)}
    sizes = {number: len(json.dumps(plot)) for number, plot in shown.items()}
    largest = sorted(shown, key=lambda number: sizes[number])
    while len(packed := _pack_figures(shown)) > room and largest:
        shown[largest.pop()]["views"] = {}
    return packed, len(shown) - len(largest)


def _pack_figures(shown: dict[int, dict[str, Any]]) -> str:
    content = {"plots": shown, "joint": JOINT, "dark": DARK}
    return _packed(json.dumps(content, allow_nan=False))


def _tables(runs: Sequence[Run], room: int) -> list[dict[str, Any]]:
    """Return the tables of all runs, packed, as long as there is room; the others by name."""
    found = []
    for run in runs:
        for name, text in sorted(run.tables.items(), key=lambda pair: pair[0] != RESULTS):
            packed = _packed(text)
            is_in = len(packed) <= room
            room -= len(packed) if is_in else 0
            title = name if len(runs) == 1 else f"{run.folder.resolve().name}/{name}"
            found.append({"name": title, "file": name, "packed": packed if is_in else ""})
    return found


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


@cache
def _packed_plotly() -> str:
    return _packed(_plotly())


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _own(name: str) -> str:
    path = Path(__file__).with_name(name)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PageError(f"`{path}` is missing: install the whole package ({error})") from error
