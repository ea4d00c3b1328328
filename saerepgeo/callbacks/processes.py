"""How a command ends before its time: by a signal, or because another of its processes ended.

Always one line, from one process, and no process stays. Imports no library, so that `listen` comes
before the slow imports.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 5.0
"""Seconds for which one process waits for what another says, or for its end."""
_LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "TCPStore")


class Stopped(BaseException):
    """A signal ended the command; `status` is 128 and its number, `where` what it was doing."""

    def __init__(self, number: int, where: str = "") -> None:
        self.status, self.where = 128 + number, where
        super().__init__(f"stopped by {signal.Signals(number).name}; what was written is whole")


class LostProcessError(OSError):
    """Another process of this run ended, and cannot say so."""


def listen() -> None:
    """Raise `Stopped` at SIGINT or SIGTERM, from now on; a second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    def dropped(lost: "sys.UnraisableHookArgs") -> None:
        """Send a signal again that came in a `__del__`: Python drops what is raised there."""
        if not isinstance(lost.exc_value, Stopped):
            sys.__unraisablehook__(lost)
            return
        for number in SIGNALS:
            signal.signal(number, stop)
        again = os.getpid(), lost.exc_value.status - 128
        threading.Timer(0.02, os.kill, again).start()  # here it would be dropped once more

    sys.unraisablehook = dropped
    for number in SIGNALS:
        signal.signal(number, stop)
    if is_child():
        parent = os.getppid()
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def is_child() -> bool:
    """Return whether another process of this computer started this one to compute with it."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def say(line: str) -> None:
    """Print a line on stderr.

    Another process waits for the first to speak: where both refuse the same input, the first says
    so, and stops the others by a signal.
    """
    if is_child():
        parent = os.getppid()
        _wait(lambda: os.getppid() != parent)
    print(line, file=sys.stderr, flush=True)


@contextmanager
def together(trainer: Any) -> Iterator[None]:
    """End the processes that `trainer` started where this one fails or is stopped.

    Raises LostProcessError in place of what a collective says when another process is gone.
    """
    try:
        yield
    except BaseException as error:
        is_lost = isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
        status = _end_others(trainer, is_lost)
        if is_lost and status > 0:
            raise SystemExit(status) from error  # the other process has said why
        if is_lost:
            raise LostProcessError(
                "another process of this run has ended; go on from the last checkpoint with "
                "`--ckpt_path last`"
            ) from error
        raise


def _end_others(trainer: Any, is_lost: bool) -> int:
    """End the processes that this one started; return the status of one that ended by itself.

    Where one `is_lost` it is given time to end: its connections close before it has a status.
    """
    processes = list(getattr(trainer.strategy.launcher, "procs", ()))
    if not processes:
        return 0
    trainer.strategy.launcher.procs.clear()  # Lightning would kill this process for their ends
    if is_lost:
        _wait(lambda: any(process.poll() is not None for process in processes))
    ended = [process.poll() or 0 for process in processes]
    for process in processes:
        process.terminate()
    _wait(lambda: all(process.poll() is not None for process in processes))
    for process in processes:
        process.kill()
        process.wait()
    return max(ended)


def _wait(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so() and time.monotonic() < until:
        time.sleep(0.05)


def _end_with(parent: int) -> None:
    """End this process soon after its parent, though it hangs in a collective."""
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(PATIENCE / 2)  # the main thread may yet say what it knows
    print("error: the first process of this run has ended", file=sys.stderr, flush=True)
    os._exit(1)
