"""Kill runs at random moments and resume them; a process of its own that imports once and forks.

`python killed_runs.py COMMAND FOLDER N SEED`: `FOLDER/given` holds `run.yaml`, for the commands
`experiment` and `compare` a file of that name. One undisturbed run into `FOLDER/whole`, then `N`
runs, each into a folder of its own, killed by SIGKILL or SIGTERM at a random moment, and its
resumption perhaps killed again; prints one JSON line of `{"folder", "ends"}` for each.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
KILLS_AT_MOST = 3
CONFIGS = {name: f"{name}.yaml" for name in ("experiment", "compare")} | {"fit": "run.yaml"}


def moved(config: Any, old: str, new: str) -> Any:
    """Return a configuration with one folder's name for another's."""
    if isinstance(config, dict):
        return {name: moved(value, old, new) for name, value in config.items()}
    if isinstance(config, list):
        return [moved(value, old, new) for value in config]
    return config.replace(old, new) if isinstance(config, str) else config


def start(command: str, folder: Path, again: bool = False) -> int:
    """Start a run in a fork; return its process number. What it says goes into `said.txt`."""
    if number := os.fork():
        return number
    status = 70
    try:
        said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        import saerepgeo.__main__ as entry

        options = ["--ckpt_path", "last"] if again and command == "fit" else []
        sys.argv = ["saerepgeo", command, "--config", str(folder / CONFIGS[command]), *options]
        status = entry.run()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(number: int) -> int:
    """Return the exit status of a process, waited for; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def killed_and_resumed(
    command: str, folder: Path, draw: random.Random, seconds: float
) -> list[int]:
    """Return how each attempt ended, the last one undisturbed."""
    ends: list[int] = []
    for _ in range(draw.randint(1, KILLS_AT_MOST)):
        number = start(command, folder, bool(ends))
        time.sleep(draw.uniform(0, seconds))
        os.kill(number, draw.choice(SIGNALS))  # a process that has ended waits to be asked for
        ends.append(ended(number))
    return [*ends, ended(start(command, folder, True))]


def main(command: str, place: Path, n_runs: int, seed: int) -> None:
    """Run the undisturbed run and the others."""
    # imported once, for all forks
    import ot  # noqa: F401
    import transformer_lens  # noqa: F401

    import saerepgeo.cases.separability.module
    import saerepgeo.cli.commands
    import saerepgeo.experiment
    import saerepgeo.lm.frozen  # noqa: F401

    configs = {path.name: yaml.safe_load(path.read_text()) for path in place.glob("given/*.yaml")}
    draw, seconds = random.Random(seed), 0.0
    for name in ["first", "whole", *(f"run{index}" for index in range(n_runs))]:
        folder = place / name
        folder.mkdir()
        for file, config in configs.items():
            own = moved(config, str(place / "given"), str(folder))
            (folder / file).write_text(yaml.safe_dump(own))
        if name in ("first", "whole"):  # the first fills the cache
            begun = time.perf_counter()
            ends = [ended(start(command, folder))]
            seconds = time.perf_counter() - begun
        else:
            ends = killed_and_resumed(command, folder, draw, seconds)
        print(json.dumps({"folder": str(folder), "ends": ends, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
