"""A fit killed at random moments and resumed ends with the weights and figures of one never killed.

`make test-faults` kills at 50 moments and more; the gate at a few.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from training_process import write_config

N_RUNS = int(os.environ.get("SAEREPGEO_KILLED_RUNS", "1"))
ENDS = (-9, 128 + 15, 0)
"""Killed, stopped by SIGTERM, or faster than the signal."""
TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", ["aedp", "gromov_wasserstein"])
def test_killed_at_random_moments_and_resumed(
    tmp_path: Path, tiny_data: dict[str, Any], small_sae: Path, regularizer: str
) -> None:
    (tmp_path / "given").mkdir()
    path = write_config(tmp_path / "given", tiny_data, small_sae, 7)
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["regularizer"] = regularizer
    config["trainer"]["num_sanity_val_steps"] = -1
    best = {"dirpath": str(tmp_path / "given" / "checkpoints"), "monitor": "val/mse"}
    best |= {"filename": "best", "enable_version_counter": False}
    name = "lightning.pytorch.callbacks.ModelCheckpoint"
    config["trainer"]["callbacks"].append({"class_path": name, "init_args": best})
    path.write_text(yaml.safe_dump(config))
    where = [str(TESTS.parent), str(TESTS)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(where), "OMP_NUM_THREADS": "1"}
    if os.access("/dev/shm", os.W_OK):  # another file system than the checkpoints'
        environment["TMPDIR"] = "/dev/shm"
    arguments = [str(path), str(tmp_path / "runs"), str(N_RUNS), str(len(regularizer))]
    done = subprocess.run(
        [sys.executable, str(TESTS / "killed_fits.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300 + 60 * N_RUNS,
    )
    assert done.returncode == 0, done.stderr
    _, whole, *runs = (json.loads(line) for line in done.stdout.splitlines())
    assert whole["ends"] == [0], said(whole)
    assert len(runs) == N_RUNS
    for run in runs:
        *ends, last = run["ends"]
        assert last == 0, said(run)
        assert all(end in ENDS for end in ends), said(run)
        assert "Traceback" not in said(run), said(run)
        assert_same(Path(run["folder"]), Path(whole["folder"]))


def said(run: dict[str, Any]) -> str:
    return f"{run['ends']}\n{(Path(run['folder']) / 'said.txt').read_text()[-6000:]}"


def assert_same(got: Path, expected: Path) -> None:
    ours, theirs = (load_file(f / "sae/training/sae_weights.safetensors") for f in (got, expected))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in theirs), got
    ours, theirs = (json.loads((f / "sae/figures.json").read_text()) for f in (got, expected))
    assert ours == theirs, got
