"""`python -m saerepgeo`: bad input ends in one line and a non-zero exit."""

import importlib
import os
import signal
import sys
from typing import Any

from saerepgeo.callbacks.processes import SIGNALS, Stopped, is_child, listen, say


def run() -> int:
    """Run the command line and return the exit status."""
    previous, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    listen()  # before the slow imports
    try:
        from saerepgeo.cli.help import COMMANDS

        if sys.argv[1:2] and sys.argv[1] in COMMANDS:
            command = importlib.import_module(COMMANDS[sys.argv[1]][0])
            return int(command.main(sys.argv[2:]))
        from saerepgeo.cli import main

        return main()
    except Stopped as stopped:
        if not is_child():
            print(stopped, file=sys.stderr)
        return stopped.status
    except (ValueError, OSError) as error:
        if os.environ.get("SAEREPGEO_TRACEBACK"):
            raise
        try:
            say(f"error: {one_line(error)}")
        except Stopped as stopped:  # by the first process, which has said it
            return stopped.status
        return 2
    finally:
        sys.unraisablehook = hook
        _set(previous)


def _set(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def one_line(error: Exception) -> str:
    """Return what a message says; of a constructor's, what lies under jsonargparse's wrapping."""
    while str(error).startswith("Does not validate") and isinstance(error.__cause__, Exception):
        error = error.__cause__
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


if __name__ == "__main__":
    status = run()
    _set(dict.fromkeys(SIGNALS, signal.SIG_IGN))  # all is done and said
    sys.exit(status)
