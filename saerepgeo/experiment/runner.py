"""`python -m saerepgeo experiment`: run the cells that nobody has run yet, then judge.

A worker process runs cell after cell through the ordinary `fit` command line in itself, for
importing and loading takes longer than a cell. An error ends the cell, not the worker; a worker
that dies loses its cell to the next one, which resumes from the cell's last checkpoint.
"""

import gc
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence

from jsonargparse import ActionConfigFile, ArgumentParser

from saerepgeo.experiment.cells import Cell
from saerepgeo.experiment.claims import Claim
from saerepgeo.experiment.grid import Experiment
from saerepgeo.experiment.summary import summarize

FAILURES = "failures.txt"
ATTEMPT = "attempt "
"""Begins the entry of each attempt in a cell's failures file."""
STOPPED = 128 + signal.SIGTERM
"""Exit status of a worker that a signal ended."""


class Interrupted(Exception):  # noqa: N818  (control flow, not an error)
    """A cell stopped before its end at a signal; it resumes when it is run again."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the experiment of `--config FILE`, write its tables, verdict and figures.

    ValueError: bad settings, or cells that failed (after all others have been run).
    """
    arguments = list(sys.argv[1:] if args is None else args)
    parser = ArgumentParser(prog="python -m saerepgeo experiment", allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_argument("--worker", type=int, help="number of this worker; set by the parent")
    parser.add_class_arguments(Experiment)
    settings = parser.parse_args(arguments).as_dict()
    worker = settings.pop("worker")
    settings.pop("config")
    experiment = Experiment(**settings)
    if worker is None and experiment.n_processes != 1:
        status = _start_workers(experiment, arguments)
    else:
        status = _as_worker(experiment, worker or 0)
    if status or worker is not None:
        return status
    finished = experiment.finished
    if finished:
        print(summarize(experiment))
    failed = [cell for cell in experiment.cells if cell not in finished]
    if failed:
        folders = ", ".join(str(experiment.folder(cell)) for cell in failed[:3])
        raise ValueError(
            f"{len(failed)} of {len(experiment.cells)} cells have no result; see {FAILURES} in "
            f"{folders}{' …' if len(failed) > 3 else ''}, and run again"
        )
    return 0


def run_cells(experiment: Experiment, first: int = 0) -> None:
    """Run every cell that is not finished and not claimed, beginning at seed number `first`.

    Passes over the cells again while others work on some, so that what they leave is run too.
    Raises `Interrupted` where a signal stopped a cell; its checkpoint is written.
    """
    cells, n_seeds = experiment.cells, len(experiment.seeds)
    start = len(cells) * (first % n_seeds) // n_seeds
    ordered = cells[start:] + cells[:start]
    while open_cells := [cell for cell in ordered if _is_open(experiment, cell)]:
        if not sum([_try_cell(experiment, cell) for cell in open_cells]):
            time.sleep(min(5.0, experiment.stale_after / 6))


def _is_open(experiment: Experiment, cell: Cell) -> bool:
    if experiment.result_path(cell).is_file():
        return False
    failures = experiment.folder(cell) / FAILURES
    lines = failures.read_text(encoding="utf-8").splitlines() if failures.is_file() else []
    return sum(line.startswith(ATTEMPT) for line in lines) < experiment.max_attempts


def _try_cell(experiment: Experiment, cell: Cell) -> bool:
    """Return whether the cell was ours to run."""
    claim = Claim(experiment.folder(cell) / "claim", experiment.stale_after)
    if not claim.acquire():
        return False
    with claim:
        if _is_open(experiment, cell):  # it may have been finished just before the claim was free
            _run(experiment, cell)
    return True


def _run(experiment: Experiment, cell: Cell) -> None:
    from saerepgeo.cli import main as run_command

    folder, started = experiment.folder(cell), time.perf_counter()
    try:
        run_command(experiment.command(cell))
    except (Exception, SystemExit) as error:
        text = "".join(traceback.format_exception(error))
        with open(folder / FAILURES, "a", encoding="utf-8") as file:
            file.write(f"{ATTEMPT}{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
        print(f"{folder.name}: failed, {error}", file=sys.stderr, flush=True)
        return
    finally:
        gc.collect()  # a trainer and its language model sit in cycles, few objects but 0.5 GB
    if not experiment.result_path(cell).is_file():
        raise Interrupted(folder.name)
    seconds = time.perf_counter() - started
    n_done, n_cells = len(experiment.finished), len(experiment.cells)
    print(f"{folder.name}: {seconds:.0f} s, {n_done}/{n_cells}", flush=True)


def _as_worker(experiment: Experiment, number: int) -> int:
    try:
        run_cells(experiment, number * len(experiment.seeds) // max(experiment.n_processes, 1))
    except Interrupted as stopped:
        print(f"interrupted in {stopped}; run again to go on", file=sys.stderr)
        return STOPPED
    return 0


def _start_workers(experiment: Experiment, arguments: Sequence[str]) -> int:
    """Run worker processes to their end, starting those that crash once more; return a status."""
    command = [sys.executable, "-m", "saerepgeo", "experiment", *arguments]
    n_threads = experiment.n_threads or max(1, (os.cpu_count() or 1) // experiment.n_processes)
    environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
    for _ in range(2):
        workers = [
            subprocess.Popen([*command, f"--worker={number}"], env=environment)
            for number in range(experiment.n_processes)
        ]
        statuses = _wait_for(workers)
        if STOPPED in statuses:
            return STOPPED
        if not any(statuses):
            break
    return 0


def _wait_for(workers: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Return the workers' exit statuses; pass SIGTERM on to them, and leave none behind."""

    def stop(*_: object) -> None:
        for worker in workers:
            worker.terminate()

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        return [worker.wait() for worker in workers]
    except KeyboardInterrupt:  # the terminal has sent it to the workers as well
        for worker in workers:
            worker.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
