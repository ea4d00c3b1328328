"""`python -m saerepgeo experiment`: run the cells that nobody has run yet, then judge.

A worker process runs cell after cell through the ordinary `fit` command line in itself, for
importing and loading takes longer than a cell. An error ends the cell, not the worker; a worker
that dies loses its cell to the next one, which resumes from the cell's last checkpoint.
"""

import gc
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile

from saerepgeo.bounds import check_settings
from saerepgeo.cli.errors import OneLineErrors
from saerepgeo.experiment.attempts import (
    FAILURES,
    begin_again,
    last_reason,
    n_failures,
    record_failure,
)
from saerepgeo.experiment.cell_check import check_cells
from saerepgeo.experiment.cells import Cell
from saerepgeo.experiment.claims import Claim
from saerepgeo.experiment.grid import Experiment
from saerepgeo.experiment.summary import summarize
from saerepgeo.experiment.workers import SIGNALLED, Interrupted, set_threads, wait_for_workers
from saerepgeo.yaml_files import load_yaml

DIED = "its process ended by a signal, or was killed for want of memory"


def main(args: Sequence[str] | None = None) -> int:
    """Run the experiment of `--config FILE`, write its tables, verdict and figures.

    ValueError: bad settings, or cells that failed (after all others have been run).
    """
    arguments = list(sys.argv[1:] if args is None else args)
    experiment, worker = _parse(arguments)
    if worker is None:
        check_cells(experiment)
    try:
        if worker is not None or experiment.n_processes == 1:
            if worker is None:
                _start_again(experiment)
                set_threads(experiment.n_threads)
            run_cells(experiment, (worker or 0) * len(experiment.seeds) // experiment.n_processes)
        else:
            _start_again(experiment)
            _run_workers(experiment, arguments)
    except Interrupted as stopped:
        if worker is None or stopped.where:
            where = f" in {stopped.where}" if stopped.where else ""
            print(f"interrupted{where}; run again to go on", file=sys.stderr)
        return stopped.status
    return 0 if worker is not None else _conclude(experiment)


def _parse(arguments: Sequence[str]) -> tuple[Experiment, int | None]:
    parser = OneLineErrors(prog="python -m saerepgeo experiment", allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_argument("--worker", type=int, help="number of this worker; set by the parent")
    parser.add_class_arguments(Experiment)
    arguments, own = _settings_of_cells(arguments)
    settings = parser.parse_args(arguments).as_dict()
    settings["settings"] = {**(settings["settings"] or {}), **own}
    worker = settings.pop("worker")
    settings.pop("config")
    check_settings(Experiment, settings)  # the parser lets null pass for a number
    return Experiment(**settings), worker


def _settings_of_cells(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the other arguments, and each `--settings.NAME VALUE` by its name.

    jsonargparse keeps the last one alone of several under one parent.
    """
    others, own, waiting = [], {}, iter(arguments)
    for argument in waiting:
        option, is_whole, value = argument.partition("=")
        if not option.startswith("--settings."):
            others.append(argument)
            continue
        name = option.removeprefix("--")
        text = value if is_whole else next(waiting, None)
        if text is None:
            raise ValueError(f"`{name}` needs a value")
        try:
            own[name.removeprefix("settings.")] = load_yaml(text)
        except yaml.YAMLError as error:
            raise ValueError(f"`{name}` must be a value as in YAML, but {error}") from None
    return others, own


def _start_again(experiment: Experiment) -> None:
    """Say which results are damaged; let failures and dead processes of before not count."""
    for cell in experiment.cells:
        folder = experiment.folder(cell)
        try:
            experiment.rows(cell)
        except FileNotFoundError:
            pass
        except ValueError as error:
            path = experiment.result_path(cell)
            print(f"{path} is damaged and its cell runs again: {error}", file=sys.stderr)
        else:
            continue
        _note_death(experiment, cell)
        begin_again(folder)


def _note_death(experiment: Experiment, cell: Cell) -> None:
    """Count an attempt that ended with its process, and release its claim."""
    claim = Claim(experiment.folder(cell) / "claim", experiment.stale_after)
    if claim.path.exists() and claim.acquire():
        with claim:
            if claim.took_over:
                record_failure(experiment.folder(cell), DIED)


def _conclude(experiment: Experiment) -> int:
    finished = experiment.finished
    failed = [cell for cell in experiment.cells if cell not in finished]
    try:
        if finished:
            print(summarize(experiment))
    except ValueError:
        if not failed:
            raise
    if failed:
        folder = experiment.folder(failed[0])
        reason = last_reason(folder)
        raise ValueError(
            f"{len(failed)} of {len(experiment.cells)} cells have no result, the first for: "
            f"{reason or 'no worker came to it'}; see {FAILURES} in {folder}, and run again"
        )
    return 0


def run_cells(experiment: Experiment, first: int = 0) -> None:
    """Run every cell that is not finished and not claimed, beginning at seed number `first`.

    Passes over the cells again while others work on some, so that what they leave is run too;
    cells that failed before come last. Raises `Interrupted` where a signal stopped a cell; its
    checkpoint is written.
    """
    cells, n_seeds = experiment.cells, len(experiment.seeds)
    start = len(cells) * (first % n_seeds) // n_seeds
    ordered = cells[start:] + cells[:start]
    ordered.sort(key=lambda cell: n_failures(experiment.folder(cell), in_all=True))
    is_waiting = False
    while open_cells := [cell for cell in ordered if _is_open(experiment, cell)]:
        if not sum([_try_cell(experiment, cell) for cell in open_cells]):
            if not is_waiting:
                print(f"waiting for {len(open_cells)} cells that other processes run", flush=True)
            is_waiting = True
            time.sleep(min(5.0, experiment.stale_after / 6))


def _is_open(experiment: Experiment, cell: Cell) -> bool:
    is_left = n_failures(experiment.folder(cell)) < experiment.max_attempts
    return is_left and not experiment.is_finished(cell)


def _try_cell(experiment: Experiment, cell: Cell) -> bool:
    """Return whether the cell was ours to run."""
    folder = experiment.folder(cell)
    claim = Claim(folder / "claim", experiment.stale_after)
    if not claim.acquire():
        return False
    with claim:
        if claim.took_over:
            record_failure(folder, DIED)
        if _is_open(experiment, cell):  # it may have been finished just before the claim was free
            _run(experiment, cell)
    return True


def _run(experiment: Experiment, cell: Cell) -> None:
    from saerepgeo.cli import OneDeviceCLI
    from saerepgeo.cli import main as run_command

    folder, started = experiment.folder(cell), time.perf_counter()
    checkpoints = folder / "checkpoints"
    newest = _newest(checkpoints)
    try:
        status = run_command(experiment.command(cell), OneDeviceCLI)
    except (Exception, SystemExit) as error:
        if (status := _status(error)) <= SIGNALLED:
            record_failure(folder, "".join(traceback.format_exception(error)))
            print(f"{folder.name}: failed, {error}", file=sys.stderr, flush=True)
            if newest is not None and newest == _newest(checkpoints):
                _set_aside(checkpoints, error)
            return
    finally:
        gc.collect()  # a trainer and its language model sit in cycles, few objects but 0.5 GB
    if status > SIGNALLED:
        raise Interrupted(status, folder.name)
    if not experiment.is_finished(cell):
        record_failure(folder, f"`fit` ended with status {status} and without a result")
        return
    seconds = time.perf_counter() - started
    n_done, n_cells = len(experiment.finished), len(experiment.cells)
    print(f"{folder.name}: {seconds:.0f} s, {n_done}/{n_cells}", flush=True)


def _status(error: BaseException) -> int:
    """Return the exit status that an error stands for; Lightning exits with 1 at Ctrl-C."""
    if isinstance(error.__context__, KeyboardInterrupt):
        return SIGNALLED + 2
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1


def _newest(checkpoints: Path) -> tuple[int, Path] | None:
    return max(((p.stat().st_mtime_ns, p) for p in checkpoints.glob("*.ckpt")), default=None)


def _set_aside(checkpoints: Path, error: BaseException) -> None:
    """Let the next attempt begin anew, where one that went on from a checkpoint came no further."""
    if isinstance(error, OSError):  # of the disk, not of the checkpoint
        return
    aside = checkpoints.with_name("checkpoints_failed")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoints.rename(aside)
    print(f"{aside.parent.name}: begins anew; its checkpoints are in {aside}", file=sys.stderr)


def _run_workers(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Run worker processes to their end, anew while some die and others, or they, get further."""
    before = None
    while (now := _progress(experiment)) != before:
        before = now
        options = experiment.n_processes, experiment.n_threads, experiment.names_devices
        statuses = wait_for_workers(arguments, *options)
        for cell in experiment.cells:
            if not experiment.is_finished(cell):
                _note_death(experiment, cell)
        if not any(statuses):
            return


def _progress(experiment: Experiment) -> list[tuple[bool, int]]:
    folders = {cell: experiment.folder(cell) for cell in experiment.cells}
    return [(experiment.is_finished(cell), n_failures(f)) for cell, f in folders.items()]
