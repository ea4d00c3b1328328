"""Runs spread over processes by a real, local Ray: errors, deaths, signals; what is left behind."""

import gc
import importlib.util
import json
import math
import operator
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_comparison import ONE, changed, rows_at, write_comparison
from training_process import write_config

from saerepgeo.experiment import Cell, Experiment, compare, reproduce, run_cells
from saerepgeo.experiment.engine import QUIET, Ended, Engine, ended_calls
from saerepgeo.report.results import read_results
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

TWO = Engine(n_processes=2, n_threads=1)
RAYS = pytest.mark.filterwarnings("default")
"""Ray 2.60 leaves sockets and files of its own to the garbage collector."""


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """One session for the module, with two GPUs that are not there."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ray = pytest.importorskip("ray")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        options = {"include_dashboard": False, "logging_level": "ERROR", "_temp_dir": folder}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
            ray.init(num_cpus=2, num_gpus=2, object_store_memory=80 * 2**20, **options)
        for number, handler in before.items():
            signal.signal(number, handler)
        yield ray
        ray.shutdown()
    with warnings.catch_warnings():  # it waits for none of the processes that it ends
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def by_number(*args: Any) -> list[Ended]:
    return sorted(ended_calls(*args), key=operator.attrgetter("number"))


@RAYS
def test_an_error_ends_its_call_and_not_the_worker(session: Any) -> None:
    engine = Engine(n_processes=2, n_threads=1, gpus_per_cell=0.0)
    wrong, right = by_number(operator.truediv, [(1, 0), (1, 4)], engine)
    assert type(wrong.error) is ZeroDivisionError
    assert right == Ended(1, 0.25)
    ends = by_number(os.getpid, [()] * 6, engine)
    assert len({end.value for end in ends}) <= 2, "workers stay for the next call"
    assert os.getpid() not in {end.value for end in ends}
    (threads,) = by_number(torch.get_num_threads, [()], engine)
    assert threads.value == 1


@RAYS
def test_a_worker_sees_its_own_gpu(session: Any) -> None:
    (shown,) = by_number(os.getenv, [("CUDA_VISIBLE_DEVICES",)], TWO)
    assert shown.value in ("0", "1")


@RAYS
def test_a_call_that_ends_its_process_is_given_up(session: Any) -> None:
    (end,) = by_number(os._exit, [(1,)], Engine(n_processes=2, gpus_per_cell=0.0, max_attempts=1))
    assert isinstance(end.error, OSError)
    assert "its process ended by a signal" in str(end.error)


@pytest.mark.parametrize(
    ("n_processes", "n_gpus", "share"),
    [(2, 0.0, 0.0), (2, 2.0, 1.0), (2, 3.0, 1.0), (3, 2.0, 0.5), (4, 2.0, 0.5), (5, 2.0, 1 / 3)],
)
def test_processes_fit_on_the_gpus_at_once(n_processes: int, n_gpus: float, share: float) -> None:
    assert Engine(n_processes=n_processes).gpus(n_gpus) == share
    if share:
        assert math.floor(1 / share) * n_gpus >= n_processes
    assert Engine(n_processes=n_processes, gpus_per_cell=0.25).gpus(n_gpus) == 0.25


def test_without_ray_calls_are_made_here_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ends = list(ended_calls(os.getpid, [(), ()], TWO))
    assert ends == [Ended(0, os.getpid()), Ended(1, os.getpid())]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("one after the other, in this process: Ray is not installed, `pip ")
    ends = list(ended_calls(operator.truediv, [(1, 0), (1, 4)], Engine()))
    assert type(ends[0].error) is ZeroDivisionError
    assert ends[1].value == 0.25


@pytest.fixture
def settings(tmp_path: Path, tiny_data: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of an experiment of two small cells that take a while."""
    save_sae(new_sae(d_in=32, d_sae=64, k=4), tmp_path / "sae")
    data = tiny_data | {"heldout_items": 0.3, "concept_fraction": 0.75, "batch_size": 128}
    base = write_config(tmp_path, data, tmp_path / "sae", 60)
    about = {"regularizers": ["fisher"], "doses": [0.5], "seeds": [0], "n_contexts": 0}
    return about | {"base": str(base), "checkpoint_every": 1, "n_threads": 1}


def begun(experiment: Experiment, cell: Cell) -> Path:
    """Return the folder of a cell that has a checkpoint and no result."""
    folder, until = experiment.folder(cell), time.monotonic() + 600
    while not (folder / "checkpoints" / "last.ckpt").is_file():
        assert time.monotonic() < until, "it never began"
        time.sleep(0.005)
    assert not experiment.result_path(cell).is_file(), "too fast for the test"
    return folder


def assert_same(ours: Experiment, theirs: Experiment) -> None:
    """Compare rows and last weights."""
    for cell in ours.cells:
        rows, weights = [], []
        for each in (ours, theirs):
            rows.append([row | {"seconds_per_step": 0} for row in each.rows(cell)])
            path = each.folder(cell) / "checkpoints" / "last.ckpt"
            weights.append(torch.load(path, weights_only=True)["state_dict"])
        assert rows[0] == rows[1]
        assert all(weights[0][name].equal(weights[1][name]) for name in weights[1])


@pytest.mark.slow
@RAYS
def test_a_worker_killed_in_mid_cell_is_replaced_and_comes_to_the_same_weights(
    session: Any, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Experiment(**settings, output=str(tmp_path / "whole"))
    run_cells(whole)
    two = {"n_processes": 2, "gpus_per_cell": 0.0}
    killed = Experiment(**settings | two, output=str(tmp_path / "killed"))
    control, other = killed.cells

    def kill() -> None:
        for cell, number in ((control, signal.SIGKILL), (other, signal.SIGTERM)):
            os.kill(int((begun(killed, cell) / "running").read_text()), number)

    killer = threading.Thread(target=kill)
    killer.start()
    run_cells(killed)
    killer.join()
    assert (killed.folder(control) / "failures.txt").read_text().count("attempt ") == 1
    assert not (killed.folder(other) / "failures.txt").exists(), "told to go, it failed nothing"
    assert_same(killed, whole)
    assert "2/2" in capsys.readouterr().out


@pytest.mark.slow
@RAYS
def test_compare_in_two_processes_has_the_rows_of_one(
    session: Any, few_prompts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_comparison(tmp_path, few_prompts)
    assert compare.main(["--config", str(config)]) == 0
    expected = str(rows_at(config))
    two = {"output": str(tmp_path / "two"), "n_processes": 2, "n_threads": 1, "gpus_per_cell": 0.0}
    (tmp_path / "many" / "training" / "sae_weights.safetensors").write_bytes(b"nothing")
    assert compare.main(["--config", str(changed(config, **two))]) == 1
    assert "error: SAE many is left out" in capsys.readouterr().err
    save_sae(new_sae("topk", d_in=32, d_sae=96, k=8, seed=8), tmp_path / "many", {"hook_name": ONE})
    assert compare.main(["--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert out.count("finished before") == 2
    assert "many, done: 6/6, 0:00 left" in out
    assert str(read_results(tmp_path / "two" / "results.csv")) == expected


@RAYS
def test_reproduce_runs_cases_at_once_and_tells_them_in_order(
    session: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = Path(__file__).parents[2] / "configs"
    models = [tmp_path / f"{name}.yaml" for name in ("one", "two")]
    for path in models:
        path.write_text(f"data: {{init_args: {{lm: no/{path.stem}}}}}\n")
    where = ["--configs", str(configs), "--output", str(tmp_path), "--cases", "2"]
    two = ["--n_processes", "2", "--n_threads", "1", "--gpus_per_cell", "0"]
    assert reproduce.main(["--models", *map(str, models), *where, *two]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == ["one, case 2 …", "two, case 2 …"]
    assert [line.split()[:2] for line in out.splitlines()[3:]] == [["one", "2"], ["two", "2"]]
    assert {"one, case 2", "two, case 2"} <= {line.split(":")[0] for line in err.splitlines()}
    assert "no/one" in err


def of_run(mark: str) -> list[str]:
    """Return the command lines of living processes whose environment holds `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.thorough),
        pytest.param(signal.SIGKILL, marks=pytest.mark.thorough),
    ],
)
def test_a_driver_that_is_stopped_stops_all_and_is_gone_on_from(
    settings: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    pytest.importorskip("ray")
    whole = Experiment(**settings, output=str(tmp_path / "whole"))
    run_cells(whole)
    stopped = Experiment(**settings, output=str(tmp_path / "stopped"))
    config = tmp_path / "experiment.yaml"
    config.write_text(yaml.safe_dump(settings | {"output": stopped.output, "n_processes": 2}))
    command = [sys.executable, "-m", "saerepgeo", "experiment", f"--config={config}"]
    with tempfile.TemporaryDirectory(prefix="s") as place:
        mark = f"RUN_OF_TEST={place}"
        environment = os.environ | {"RUN_OF_TEST": place, "TMPDIR": place, "HOME": place}
        driver = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            folder = begun(stopped, stopped.cells[0])
            if number == signal.SIGINT:  # as a terminal does
                os.killpg(driver.pid, number)
            else:
                driver.send_signal(number)
            said = driver.communicate(timeout=120)[1]
        finally:
            if driver.poll() is None:
                os.killpg(driver.pid, signal.SIGKILL)
                driver.communicate()
        if number == signal.SIGKILL:
            assert driver.returncode == -number
            for _ in range(200):  # Ray's agents look for their parent now and then
                if not of_run(mark):
                    break
                time.sleep(1)
        else:
            assert driver.returncode == 128 + number
            assert said.count("interrupted") == 1
            assert said.splitlines()[-1] == "interrupted; run again to go on"
            assert not (folder / "running").exists()
            assert not (folder / "failures.txt").exists()
            # libraries that SAELens imports leave caches of their own in a new home
            assert [path for path in Path(place).iterdir() if "ray" in path.name] == []
        assert of_run(mark) == []
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < last["global_step"] < 60
    run_cells(stopped)
    assert_same(stopped, whole)
    assert json.loads(stopped.result_path(stopped.cells[0]).read_text())["rows"]
