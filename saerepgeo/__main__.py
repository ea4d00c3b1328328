"""`python -m saerepgeo`: bad input ends in one line and a non-zero exit."""

import os
import sys


def run() -> int:
    """Run the command line and return the exit status."""
    from saerepgeo.cli import main

    try:
        main()
    except ValueError as error:
        if os.environ.get("SAEREPGEO_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run())
