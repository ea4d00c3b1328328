"""`python -m saerepgeo`: bad input ends in one line and a non-zero exit."""

import importlib
import os
import sys

from saerepgeo.cli_help import COMMANDS


def run() -> int:
    """Run the command line and return the exit status."""
    try:
        if sys.argv[1:2] and sys.argv[1] in COMMANDS:
            command = importlib.import_module(COMMANDS[sys.argv[1]][0])
            return int(command.main(sys.argv[2:]))
        from saerepgeo.cli import main

        return main()
    except (ValueError, OSError) as error:
        if os.environ.get("SAEREPGEO_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def one_line(error: Exception) -> str:
    """Return what a message says; of a constructor's, what lies under jsonargparse's wrapping."""
    lines = str(error).splitlines() or [type(error).__name__]
    reasons = [line.strip()[2:] for line in lines if line.strip().startswith("- ")]
    reasons = [reason for reason in reasons if not reason.startswith("Expected a <class")]
    return reasons[0] if reasons and lines[0].startswith("Does not validate") else lines[0]


if __name__ == "__main__":
    sys.exit(run())
