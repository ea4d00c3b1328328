"""What became of a cell's attempts: a text file in its folder, for people and for the next try."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saerepgeo.experiment.engine import DIED

FAILURES = "failures.txt"
RUNNING = "running"
"""A file with a process's number, there while it works on a cell: one that died leaves it."""
ATTEMPT = "attempt "
"""Begins the entry of each attempt that failed."""
AGAIN = "run again "
"""Begins the line where the experiment was started again: attempts count from there."""


def record_failure(folder: Path, text: str) -> None:
    """Add a failed attempt; `text` says why, in its last line."""
    _add(folder, f"{ATTEMPT}{_now()}\n{text.strip()}\n\n")


def begin_again(folder: Path) -> None:
    """Let all attempts of before not count, if there were any."""
    note_death(folder)
    if (folder / FAILURES).exists():
        _add(folder, f"{AGAIN}{_now()}\n\n")


def note_death(folder: Path) -> bool:
    """Record the attempt of a process that died; return whether there was one."""
    if died := (folder / RUNNING).exists():
        record_failure(folder, DIED)
        (folder / RUNNING).unlink()
    return died


@contextmanager
def attempted(folder: Path) -> Iterator[None]:
    """Leave, should the process die inside, what `note_death` finds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUNNING).write_text(str(os.getpid()), encoding="utf-8")
    try:
        yield
    finally:
        (folder / RUNNING).unlink(missing_ok=True)


def n_failures(folder: Path, in_all: bool = False) -> int:
    """Return how many attempts failed since the experiment was last started, or in all."""
    lines = _lines(folder)
    again = [number for number, line in enumerate(lines) if line.startswith(AGAIN)]
    counted = lines if in_all or not again else lines[again[-1] :]
    return sum(line.startswith(ATTEMPT) for line in counted)


def last_reason(folder: Path) -> str | None:
    """Return the last line of the last failed attempt, or None without any."""
    lines = [line for line in _lines(folder) if line.strip() and not line.startswith(AGAIN)]
    return lines[-1][:300] if lines else None


def _lines(folder: Path) -> list[str]:
    path = folder / FAILURES
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return text.splitlines()


def _add(folder: Path, text: str) -> None:
    with open(folder / FAILURES, "a", encoding="utf-8") as file:
        file.write(text)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
