"""Signals at any moment, and processes that lose one another: one line, a status, none left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.faults import Place
from faults.test_faults import ASIDES, run
from training_process import analysis, run_fit, write_config

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
BEFORE = ("setup", "on_fit_start", "on_sanity_check_start", "on_sanity_check_end", "on_train_start")
AFTER = ("on_train_end", "on_fit_end", "teardown")
STEPS = ("on_train_batch_start", "on_train_batch_end", "on_validation_start")
DDP = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


def signalling(place: Place, hook: str, name: str) -> None:
    """Add the callback that sends this process a signal in a hook."""
    options = {"hook": hook, "signal_name": name}
    callback = {"class_path": "training_process.SignalIn", "init_args": options}
    place.config["trainer"]["callbacks"].insert(0, callback)


def ended(place: Place, monkeypatch: Any, capfd: Any, command: str = "fit") -> tuple[int, str]:
    """Return the status of a command run in this process, and what it said of its end."""
    monkeypatch.chdir(place.folder)
    status = run(place.command(command), monkeypatch)
    said = [line for line in capfd.readouterr().err.splitlines() if not ASIDES.match(line)]
    return status, "\n".join(said)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("hook", BEFORE)
def test_stopped_before_training(place, monkeypatch, capfd, hook, name, tmp_path):
    signalling(place, hook, name)
    place.trainer(num_sanity_val_steps=1)
    status, said = ended(place, monkeypatch, capfd)
    assert status == 128 + getattr(signal, name)
    assert said == f"stopped by {name}; what was written is whole"
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("sae_weights*"))


@pytest.mark.parametrize("command", ["validate", "test"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stopped_while_it_loads_without_training(place, monkeypatch, capfd, command, name):
    signalling(place, "setup", name)
    status, said = ended(place, monkeypatch, capfd, command)
    assert status == 128 + getattr(signal, name)
    assert said == f"stopped by {name}; what was written is whole"


@pytest.mark.parametrize("hook", STEPS)
def test_stopped_in_training(place, monkeypatch, capfd, caplog, hook, tmp_path):
    signalling(place, hook, "SIGTERM")
    place.trainer(max_steps=5, num_sanity_val_steps=0)
    status, said = ended(place, monkeypatch, capfd)
    assert status == 143
    assert said == ""
    assert caplog.text.count("interrupted after step") == 1
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").is_file()
    assert not (tmp_path / "out" / "sae").exists()


@pytest.mark.parametrize("hook", AFTER)
def test_stopped_after_training(place, monkeypatch, capfd, hook, tmp_path):
    signalling(place, hook, "SIGTERM")
    status, _ = ended(place, monkeypatch, capfd)
    assert status == 143
    del place.config["trainer"]["callbacks"][0]
    assert run(place.command("fit", "--ckpt_path", "last"), monkeypatch) == 0
    assert (tmp_path / "out" / "sae" / "figures.json").is_file()


def test_a_second_signal_ends_at_once(place, monkeypatch, capfd):
    for hook in ("on_before_zero_grad", "on_train_batch_start"):
        signalling(place, hook, "SIGTERM")
    place.trainer(num_sanity_val_steps=0)
    status, said = ended(place, monkeypatch, capfd)
    assert status == 143
    assert said == "stopped by SIGTERM; what was written is whole"


DROPPED = """
import os, signal, time
from saerepgeo.callbacks.processes import Stopped, listen

class Cycle:
    def __del__(self):
        if not os.environ.pop("SENT", None):
            os.environ["SENT"] = "1"
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(10**6):
                pass

listen()
try:
    Cycle()
    time.sleep(10)
    print("not stopped")
except Stopped as stopped:
    print(stopped.status)
"""


def test_a_signal_that_comes_while_an_object_is_taken_down_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("143\n", "")


@pytest.fixture
def config(tmp_path: Path, tiny_data: dict[str, Any], small_sae: Path) -> Path:
    return write_config(tmp_path, tiny_data, small_sae, 6)


def in_rank(rank: int, hook: str, name: str) -> str:
    options = {"hook": hook, "signal_name": name, "rank": rank}
    callback = {"class_path": "training_process.SignalIn", "init_args": options}
    return f"--trainer.callbacks+={json.dumps(callback)}"


def lines_of(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """Return what was said of the end; `run_fit` returns when no process holds the pipes."""
    assert "Traceback" not in done.stderr, done.stderr
    words = ("error: ", "stopped by", "interrupted after", "Forcefully")
    return [line for line in done.stderr.splitlines() if any(word in line for word in words)]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.thorough)])
def test_of_two_processes_one_is_killed(config, rank):
    start = time.monotonic()
    done = run_fit(config, *DDP, in_rank(rank, "on_train_batch_start", "SIGKILL"))
    assert done.returncode == (-signal.SIGKILL if rank == 0 else 2), done.stderr
    (line,) = lines_of(done)
    assert "process of this run has ended" in line
    assert time.monotonic() - start < 240


@pytest.mark.slow
def test_two_processes_that_refuse_say_it_once(config):
    done = run_fit(config, *DDP, "--data.init_args.concepts", "[months, nothing]")
    (line,) = lines_of(done)
    assert "nothing" in line
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "hook", "rank"),
    [
        pytest.param("fit", "on_train_batch_start", 1, marks=pytest.mark.thorough),
        ("test", "on_test_batch_start", 1),
        pytest.param("fit", "on_validation_end", 0, marks=pytest.mark.thorough),
        pytest.param("test", "on_test_batch_end", 0, marks=pytest.mark.thorough),
    ],
)
def test_what_one_of_two_processes_refuses_ends_the_other(config, tmp_path, command, hook, rank):
    """The other one waits in a collective: for gradients, or at the end of its concepts."""
    if command == "test":
        of_case_1(config, tmp_path)
    callback = {"class_path": "training_process.RefuseIn", "init_args": dict(hook=hook, rank=rank)}
    added = f"--trainer.callbacks+={json.dumps(callback)}"
    start = time.monotonic()
    done = run_fit(config, *DDP, added, command=command)
    assert lines_of(done) == [f"error: process {rank} found bad input"]
    assert done.returncode == 2
    assert time.monotonic() - start < 240


def of_case_1(config: Path, folder: Path) -> None:
    """Make an analysis of a configuration, two steps a concept."""
    settings = yaml.safe_load(config.read_text())
    sae = Path(settings["model"]["init_args"]["sae"]["path"])
    own = analysis("stratification", sae, folder / "out", n_draws=1, noise_levels=[0.0])
    settings["model"] = own.pop("model")
    settings["trainer"] |= own
    config.write_text(yaml.safe_dump(settings))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.thorough)])
def test_of_two_processes_one_is_stopped(config, rank):
    done = run_fit(config, *DDP, in_rank(rank, "on_train_batch_start", "SIGTERM"))
    (line,) = lines_of(done)
    assert "interrupted after step 2" in line  # all of them after the one in which it came
    assert done.returncode == 143
    if rank == 1:
        again = run_fit(config, *DDP, "--ckpt_path", "last")
        assert again.returncode == 0, again.stderr


@pytest.mark.slow
@pytest.mark.thorough
def test_two_processes_stopped_while_they_load(config):
    done = run_fit(config, *DDP, in_rank(0, "on_fit_start", "SIGTERM"))
    assert lines_of(done) == ["stopped by SIGTERM; what was written is whole"]
    assert done.returncode == 143


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.0])
def test_stopped_while_it_imports(config, seconds):
    command = [sys.executable, "-m", "saerepgeo", "fit", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("stopped by SIGINT")
    assert "Traceback" not in said
