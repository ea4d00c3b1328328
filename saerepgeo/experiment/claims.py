"""Claims: processes and machines share cells of work through files in one folder."""

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any


class Claim:
    """The exclusive right to work on something while a file exists and is kept fresh.

    A thread sets the file's time every `stale_after`/6 seconds; a claim whose time is more than
    `stale_after` seconds away, or of a process of this machine that is gone, is taken over. Clocks
    of machines that share the folder must agree to within `stale_after`. `took_over` says whether
    the one before did not come to its end.

    Taking over renames the stale file first: of two that try one succeeds. Should the file have
    changed hands in between, it is put back. At the worst two processes do the same work twice.
    Use as a context manager after `acquire()`.
    """

    def __init__(self, path: Path, stale_after: float = 300.0) -> None:
        if not stale_after > 0:
            raise ValueError(f"`stale_after` must be positive (seconds), got {stale_after}")
        self.path, self.stale_after = path, stale_after
        self.token, self.took_over = uuid.uuid4().hex, False
        self._released = threading.Event()

    def acquire(self) -> bool:
        """Return whether the claim is ours now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self._create() or (self._remove_stale() and self._create())

    def __enter__(self) -> "Claim":
        threading.Thread(target=self._keep_fresh, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        if _owner(self.path).get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        owner = {"token": self.token, "host": socket.gethostname(), "pid": os.getpid()}
        try:
            with open(self.path, "x", encoding="utf-8") as file:
                json.dump(owner, file)
        except FileExistsError:
            return False
        return True

    def _remove_stale(self) -> bool:
        owner = _owner(self.path)
        taken = self.path.with_name(f"{self.path.name}.{self.token}")
        try:
            age = abs(time.time() - self.path.stat().st_mtime)
            is_gone = owner.get("host") == socket.gethostname() and not _is_alive(owner["pid"])
            if age <= self.stale_after and not is_gone:
                return False
            os.rename(self.path, taken)
        except FileNotFoundError:
            return True
        is_ours = _owner(taken).get("token") == owner.get("token")
        if not is_ours:
            with suppress(FileExistsError):
                os.link(taken, self.path)  # the new owner goes on
        taken.unlink()
        self.took_over = is_ours
        return is_ours

    def _keep_fresh(self) -> None:
        while not self._released.wait(self.stale_after / 6):
            if _owner(self.path).get("token") == self.token:
                os.utime(self.path)


def _owner(path: Path) -> dict[str, Any]:
    """Return who made a claim; nothing of a file that is gone, half written or damaged."""
    with suppress(FileNotFoundError, ValueError, RecursionError):
        owner = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(owner, dict) and type(owner.get("pid")) is int:
            return owner
    return {}


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):  # alive, and another user's
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return pid > 0
