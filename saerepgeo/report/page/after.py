"""The page at the end of a command: what the run was, then `report.html` in its folder."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

from saerepgeo.files import DiskError, is_url, write_json
from saerepgeo.report.page.html import PAGE, write_page
from saerepgeo.report.page.sources import FACTS, PageError
from saerepgeo.shipped import config_file

PACKAGES = ("saerepgeo", "torch", "lightning", "torchmetrics", "transformer_lens", "sae_lens")


def page_after(
    folder: str | Path, seconds: float | None = None, log_dir: str | None = None
) -> None:
    """Write what a run was (`run.json`) and its page into its folder, and say where it is.

    The results are there already: a file of theirs that cannot be read, or a page that cannot be
    written, is said in one line.
    """
    if is_url(folder):
        print(f"no {PAGE}: it is made of a folder; copy the results, then run `report` on the copy")
        return
    folder = Path(folder)
    try:
        if folder.is_dir():
            write_json(folder / FACTS, _facts(seconds, log_dir))
            if written := write_page([folder], folder / PAGE):
                print(f"page: {written}")
    except (PageError, DiskError) as error:
        print(f"the results are written, but no {PAGE}: {error}", file=sys.stderr)


def _facts(seconds: float | None, log_dir: str | None) -> dict[str, Any]:
    took = [] if seconds is None else [f"{seconds:,.0f} s"]
    took.append(f"{sum(os.times()[:4]):,.0f} s of CPU, with the start")
    return {
        "command": shlex.join(["python", "-m", "saerepgeo", *sys.argv[1:]]),
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": ", ".join(took),
        "versions": {"Python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "log_dir": log_dir,
        "settings": "" if log_dir else _configs(sys.argv[1:]),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its sources
        return "not installed"


def _configs(arguments: list[str]) -> str:
    """Return the configuration files of a command that leaves no resolved settings."""
    paths = [
        value.partition("=")[2] if value.startswith("--config=") else following
        for value, following in pairwise([*arguments, ""])
        if value.startswith("--config=") or value == "--config"
    ]
    files = [Path(config_file(path)) for path in paths]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
