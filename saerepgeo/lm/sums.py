"""What tells a file's content: its sum, computed once and remembered in the cache folder."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from saerepgeo.files import write_json

CLOCK_TICK = 10**8
"""Nanoseconds in which two writes may get the same time: a file so new is not remembered."""


def cache_root() -> Path:
    """Return the folder of everything saerepgeo keeps between runs (`$SAEREPGEO_CACHE`).

    Raises ValueError where a file stands there.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saerepgeo"
    folder = Path(os.environ.get("SAEREPGEO_CACHE") or default).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"`SAEREPGEO_CACHE` must be a folder, got `{folder}`; name another, or unset it"
        )
    return folder


def file_sum(path: Path) -> str:
    """Return sha256 of a file's content.

    It is read anew only if path, size, inode, or the time of its content or of its inode changed:
    the last one cannot be set back.
    """
    path = path.resolve()
    stat = path.stat()
    facts = [str(path), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    record = cache_root() / "checked" / f"{name}.json"
    with suppress(OSError, ValueError, TypeError, LookupError):
        known = json.loads(record.read_text())
        if known["facts"] == facts and isinstance(known["sha256"], str):
            return str(known["sha256"])
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - stat.st_ctime_ns > CLOCK_TICK:
        with suppress(OSError):  # where it cannot be kept it is computed again
            write_json(record, {"facts": facts, "sha256": found})
    return found


def once(facts: str, check: Callable[[], object]) -> None:
    """Run `check`, unless it has passed on the same facts before; raises what it raises."""
    name = hashlib.sha256(facts.encode()).hexdigest()[:32]
    passed = cache_root() / "checked" / f"{name}.passed.json"
    if not passed.is_file():
        check()
        with suppress(OSError):
            write_json(passed, facts)
