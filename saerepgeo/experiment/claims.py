"""Claims: processes and machines share cells of work through files in one folder."""

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class Claim:
    """The exclusive right to work on something while a file exists and is kept fresh.

    The file is created with O_EXCL, so one process gets it. A thread sets its time every
    `stale_after`/6 seconds; a claim not refreshed for `stale_after` seconds (or of a process of
    this machine that is gone) is stale and is taken over. Clocks of machines that share the folder
    must agree to within `stale_after`.

    Taking over renames the stale file first: of two that try one succeeds. Should the file have
    changed hands in between, it is put back. At the worst two processes do the same work twice.

    Use as a context manager after `acquire()`.
    """

    def __init__(self, path: Path, stale_after: float = 300.0) -> None:
        if not stale_after > 0:
            raise ValueError(f"`stale_after` must be positive (seconds), got {stale_after}")
        self.path, self.stale_after = path, stale_after
        self.token = uuid.uuid4().hex
        self._released = threading.Event()

    def acquire(self) -> bool:
        """Return whether the claim is ours now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self._create() or (self._remove_stale() and self._create())

    def __enter__(self) -> "Claim":
        thread = threading.Thread(target=self._keep_fresh, daemon=True)
        thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._released.set()
        if _token(self.path) == self.token:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        owner = {"token": self.token, "host": socket.gethostname(), "pid": os.getpid()}
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(owner, file)
        return True

    def _remove_stale(self) -> bool:
        seen = _token(self.path)
        if not self._is_stale():
            return False
        taken = self.path.with_name(f"{self.path.name}.{self.token}")
        try:
            os.rename(self.path, taken)
        except FileNotFoundError:
            return True
        if _token(taken) != seen:
            with suppress(FileExistsError):
                os.link(taken, self.path)  # not ours to take: the new owner goes on
            taken.unlink()
            return False
        taken.unlink()
        return True

    def _is_stale(self) -> bool:
        try:
            age = time.time() - self.path.stat().st_mtime
            owner = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True
        except json.JSONDecodeError:
            return age > self.stale_after
        is_gone = owner["host"] == socket.gethostname() and not _is_alive(owner["pid"])
        return is_gone or age > self.stale_after

    def _keep_fresh(self) -> None:
        while not self._released.wait(self.stale_after / 6):
            if _token(self.path) == self.token:
                os.utime(self.path)


def _token(path: Path) -> str | None:
    try:
        found: str = json.loads(path.read_text(encoding="utf-8"))["token"]
        return found
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
