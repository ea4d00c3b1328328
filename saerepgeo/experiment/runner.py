"""`python -m saerepgeo experiment`: run the cells that are not finished, then judge.

A cell is the ordinary `fit` command line inside a process that has run others before, for
importing and loading takes longer than a cell. An error ends the attempt, not the process; where
the process dies, the cell is tried again in another one, from its last checkpoint.
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
from saerepgeo.callbacks.processes import Stopped
from saerepgeo.cli.errors import OneLineErrors
from saerepgeo.experiment.attempts import (
    FAILURES,
    attempted,
    begin_again,
    last_reason,
    n_failures,
    note_death,
    record_failure,
)
from saerepgeo.experiment.cell_check import check_cells
from saerepgeo.experiment.cells import Cell
from saerepgeo.experiment.engine import SIGNALLED, ended_calls, only_run
from saerepgeo.experiment.grid import Experiment
from saerepgeo.experiment.summary import summarize
from saerepgeo.report.page import page_after
from saerepgeo.yaml_files import load_yaml


def main(args: Sequence[str] | None = None) -> int:
    """Run the experiment of `--config FILE`, write its tables, verdict and figures.

    ValueError: bad settings, or cells that failed (after all others have been run).
    """
    experiment = _parse(sys.argv[1:] if args is None else args)
    check_cells(experiment)
    with only_run(experiment.work):
        _start_again(experiment)
        try:
            run_cells(experiment)
        except Stopped as stopped:
            where = f" in {stopped.where}" if stopped.where else ""
            print(f"interrupted{where}; run again to go on", file=sys.stderr)
            return stopped.status
        return _conclude(experiment)


def _parse(arguments: Sequence[str]) -> Experiment:
    parser = OneLineErrors(prog="python -m saerepgeo experiment", allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_class_arguments(Experiment)
    arguments, own = _settings_of_cells(arguments)
    settings = parser.parse_args(arguments).as_dict()
    settings["settings"] = {**(settings["settings"] or {}), **own}
    settings.pop("config")
    check_settings(Experiment, settings)  # the parser lets null pass for a number
    return Experiment(**settings)


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
        try:
            experiment.rows(cell)
        except FileNotFoundError:
            pass
        except ValueError as error:
            path = experiment.result_path(cell)
            print(f"{path} is damaged and its cell runs again: {error}", file=sys.stderr)
        else:
            continue
        begin_again(experiment.folder(cell))


def _conclude(experiment: Experiment) -> int:
    finished = experiment.finished
    failed = [cell for cell in experiment.cells if cell not in finished]
    try:
        if finished:
            print(summarize(experiment))
            page_after(experiment.output)
    except ValueError:
        if not failed:
            raise
    if failed:
        folder = experiment.folder(failed[0])
        raise ValueError(
            f"{len(failed)} of {len(experiment.cells)} cells have no result, the first for: "
            f"{last_reason(folder)}; see {FAILURES} in {folder}, and run again"
        )
    return 0


def run_cells(experiment: Experiment) -> None:
    """Run every cell that is not finished; those that failed before come last.

    Raises Stopped where a signal stopped a cell; its checkpoint is written.
    """
    cells = [cell for cell in _ordered(experiment) if not experiment.is_finished(cell)]
    n_done, n_cells = len(experiment.cells) - len(cells), len(experiment.cells)
    calls = [(experiment, cell) for cell in cells]
    for ended in ended_calls(run_cell, calls, experiment):
        folder = experiment.folder(cells[ended.number])
        if not note_death(folder) and ended.error is not None:
            record_failure(folder, str(ended.error))
        if ended.value is None:
            print(f"{folder.name}: failed, {last_reason(folder)}", file=sys.stderr, flush=True)
            continue
        n_done += 1
        print(f"{folder.name}: {ended.value:.0f} s, {n_done}/{n_cells}", flush=True)


def _ordered(experiment: Experiment) -> list[Cell]:
    """Return the cells seed by seed; those that begin together are of several seeds, so that no two
    processes need the same residuals at once."""
    cells = experiment.cells
    n_of_seed = len(cells) // len(experiment.seeds)

    def place(number: int) -> tuple[int, int, int]:
        n_failed = n_failures(experiment.folder(cells[number]), in_all=True)
        return n_failed, number // n_of_seed // experiment.n_processes, number % n_of_seed

    return [cells[number] for number in sorted(range(len(cells)), key=place)]


def run_cell(experiment: Experiment, cell: Cell) -> float | None:
    """Try a cell until it is finished, and return its seconds; None where it is given up.

    Raises Stopped at a signal.
    """
    folder, started = experiment.folder(cell), time.perf_counter()
    note_death(folder)
    while n_failures(folder) < experiment.max_attempts:
        with attempted(folder):
            _try(experiment, cell)
        if experiment.is_finished(cell):
            return time.perf_counter() - started
    return None


def _try(experiment: Experiment, cell: Cell) -> None:
    from saerepgeo.cli import OneDeviceCLI
    from saerepgeo.cli import main as run_command

    folder = experiment.folder(cell)
    checkpoints = folder / "checkpoints"
    newest = _newest(checkpoints)
    try:
        status = run_command(experiment.command(cell), OneDeviceCLI)
    except (Exception, SystemExit) as error:
        if (status := _status(error)) <= SIGNALLED:
            record_failure(folder, "".join(traceback.format_exception(error)))
            if newest is not None and newest == _newest(checkpoints):
                _set_aside(checkpoints, error)
            return
    finally:
        gc.collect()  # a trainer and its language model sit in cycles, few objects but 0.5 GB
    if status > SIGNALLED:
        raise Stopped(status - SIGNALLED, folder.name)
    if not experiment.is_finished(cell):
        record_failure(folder, f"`fit` ended with status {status} and without a result")


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
