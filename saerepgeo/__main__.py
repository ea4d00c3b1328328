"""`python -m saerepgeo`: bad input ends in one line and a non-zero exit."""

import os
import sys


def run() -> int:
    """Run the command line and return the exit status."""
    try:
        if sys.argv[1:2] == ["experiment"]:
            from saerepgeo.experiment import main as run_experiment

            return run_experiment(sys.argv[2:])
        from saerepgeo.cli import main

        main()
    except (ValueError, OSError) as error:
        if os.environ.get("SAEREPGEO_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run())
