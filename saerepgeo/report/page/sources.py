"""What the folder of a run holds, read for the page: tables, places, spectra, curves, settings."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from saerepgeo.report.files import read_rows
from saerepgeo.report.results import COLUMNS, RESULTS, read_results

FACTS = "run.json"
SETTINGS = "resolved_config.yaml"
TABLES = (
    *("clustering_analysis_results.csv", "rank_by_noise.csv", "strata.csv", "compare.csv"),
    *("intervention_analysis_results_icd_monge.csv", "paper_statistic.csv"),
    *("finetune_results.csv", "verdicts.csv", "contrasts.csv"),
)
"""What cases write beside the long table."""
EVENTS = "events.out.tfevents.*"
N_CURVES = 8
"""Event files of the newest runs whose curves are shown."""
Row = dict[str, Any]
Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""By run and tag: step and value."""


class PageError(ValueError):
    """A file that a page is made from cannot be read: one line with its path."""


@dataclass
class Run:
    """The folder of a run and what stands in it."""

    folder: Path
    results: list[Row] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)
    """Text of the CSV files by name, the long table first."""
    rows: dict[str, list[Row]] = field(default_factory=dict)
    """Their rows as text, but for the long table."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    settings: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.tables and not self.curves


def read_run(folder: Path) -> Run:
    """Return what a folder holds; PageError names a file that cannot be read."""
    run = Run(folder)
    if (path := folder / RESULTS).is_file():
        run.tables[RESULTS] = _read(path, lambda: path.read_text(encoding="utf-8"))
        run.results = _read(path, lambda: _with_columns(path, read_results(path), COLUMNS))
    for name in TABLES:
        if (path := folder / name).is_file():
            run.tables[name] = _read(path, lambda path=path: path.read_text(encoding="utf-8"))
            run.rows[name] = _read(path, lambda path=path: read_rows(path))
    for path in sorted(folder.glob("shown_*.json")):
        run.shown.append(_json(path, ("model", "concept", "items", "prompts", "spaces")))
    if (path := folder / FACTS).is_file():
        run.facts = _json(path)
    if newest := _newest(folder.glob(f"**/{SETTINGS}"), folder, run.facts):
        run.settings = _read(newest, lambda: newest.read_text(encoding="utf-8"))
    run.curves = _curves(folder, run.facts.get("log_dir"))
    return run


def spectra(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the singular values of case 1 by file and `space/mode/noise scale/noise`."""
    from safetensors.torch import load_file

    found = {}
    for path in sorted(folder.glob("spectra_*.safetensors")):
        found[path.stem.removeprefix("spectra_")] = _read(path, lambda path=path: load_file(path))
    return found


def _json(path: Path, names: Iterable[str] = ()) -> Any:
    content = _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))
    lacking = [name for name in names if not isinstance(content, dict) or name not in content]
    if lacking:
        raise PageError(f"`{path}` must hold {', '.join(lacking)}; run again, or move it away")
    return content


def _with_columns(path: Path, rows: list[Row], columns: Iterable[str]) -> list[Row]:
    lacking = [name for name in columns if rows and name not in rows[0]]
    if lacking:
        raise ValueError(f"its header lacks {', '.join(lacking)}")
    return rows


def _read(path: Path, read: Any) -> Any:
    try:
        return read()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise PageError(f"`{path}` cannot be read ({line}); run again, or move it away") from error


def _newest(paths: Iterable[Path], folder: Path, facts: dict[str, Any]) -> Path | None:
    """Return the settings of the last run: where its logger wrote, else the newest."""
    named = Path(str(facts.get("log_dir") or folder)) / SETTINGS
    own = [path for path in paths if "cells" not in path.relative_to(folder).parts]
    return named if named.is_file() else max(own, key=lambda p: p.stat().st_mtime, default=None)


def _curves(folder: Path, log_dir: str | None) -> Curves:
    """Return the scalars of `fit` in the event files of the newest runs, oldest first."""
    files = [
        path
        for path in folder.glob(f"**/{EVENTS}")
        if not {"cells", "tensorboard"} & set(path.relative_to(folder).parts)
    ]
    files += Path(log_dir).glob(EVENTS) if log_dir else []
    folders = {path.parent.resolve() for path in files}
    newest = sorted(folders, key=lambda path: path.stat().st_mtime)
    found: Curves = {}
    for own in newest[-N_CURVES:]:
        if tags := _scalars(own):
            found[own.name] = tags
    return found


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(("train/", "val/"))]
    found = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}
    return {tag: points for tag, points in found.items() if points}
