"""A run killed at random moments and resumed ends with the weights and figures of one never killed.

`make test-faults` kills at 50 moments and more; the gate at a few.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from training_process import write_config, write_family

from saerepgeo.report.files import read_rows
from saerepgeo.report.results import read_results
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

N_RUNS = int(os.environ.get("SAEREPGEO_KILLED_RUNS", "1"))
ENDS = (-9, 128 + 15, 0)
"""Killed, stopped by SIGTERM, or faster than the signal."""
TESTS = Path(__file__).parents[1]
FEW = {"n_permutations": 7, "n_nulls": 3, "n_extreme": 2, "n_subsamples": 3, "n_contexts": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "regularizer", ["gromov_wasserstein", pytest.param("aedp", marks=pytest.mark.thorough)]
)
def test_fits_killed_at_random_moments_and_resumed(
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
    whole, *runs = killed("fit", tmp_path, len(regularizer))
    for run in runs:
        assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.thorough
def test_families_killed_at_random_moments_and_resumed(
    tmp_path: Path, tiny_data: dict[str, Any], small_sae: Path
) -> None:
    (tmp_path / "given").mkdir()
    write_family(tmp_path / "given", tiny_data, small_sae, 7)
    whole, *runs = killed("fit", tmp_path, 3)
    for run in runs:
        for name in ("loaded", "topk", "batch"):
            assert_same(run, whole, name)


@pytest.mark.slow
@pytest.mark.thorough
def test_experiments_killed_at_random_moments_and_run_again(
    tmp_path: Path, tiny_data: dict[str, Any], small_sae: Path
) -> None:
    (tmp_path / "given").mkdir()
    base = write_config(tmp_path / "given", tiny_data, small_sae, 7)
    about: dict[str, Any] = {"base": str(base), "output": str(tmp_path / "given" / "out")}
    about |= {"regularizers": ["fisher"], "doses": [0.5], "seeds": [0], "n_processes": 1}
    (tmp_path / "given" / "experiment.yaml").write_text(yaml.safe_dump(about))
    whole, *runs = killed("experiment", tmp_path, 1)
    expected = rows_of(whole)
    assert len(expected) > 2
    for run in runs:
        assert rows_of(run) == expected, run


@pytest.mark.slow
@pytest.mark.thorough
def test_comparisons_killed_at_random_moments_and_run_again(
    tmp_path: Path, few_prompts: dict[str, Any]
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    saes = []
    for name, layer in (("first", 1), ("second", 1), ("deep", 2)):
        torch.manual_seed(layer)
        metadata = {"hook_name": f"blocks.{layer}.hook_resid_post"}
        sae = new_sae("topk", d_in=32, d_sae=96, k=4, seed=len(saes))
        save_sae(sae, tmp_path / "saes" / name, metadata)
        saes.append({"path": str(tmp_path / "saes" / name)})
    data = {n: v for n, v in few_prompts.items() if n not in ("hook_name", "test_with_padding")}
    about = FEW | {"saes": saes, "output": str(given / "out"), "data": data}
    about["metrics"] = [{"class_path": f"saerepgeo.metrics.{n}"} for n in ("TwoNN", "FisherRatio")]
    (given / "compare.yaml").write_text(yaml.safe_dump(about))
    whole, *runs = killed("compare", tmp_path, 2)
    expected = read_results(whole / "out" / "results.csv")
    assert {row["sae"] for row in expected} >= {"first", "second", "deep"}
    for run in runs:
        got = read_results(run / "out" / "results.csv")
        assert [words_of(row) for row in got] == [words_of(row) for row in expected]
        for one, other in zip(got, expected, strict=True):  # kept distances move last digits
            assert numbers_of(one) == pytest.approx(numbers_of(other), rel=1e-9, nan_ok=True), one


def words_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, float)}


def numbers_of(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, float)}


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of an experiment's table, without the time that they took."""
    rows = read_rows(folder / "out" / "finetune_results.csv")
    return [{n: v for n, v in row.items() if n != "seconds_per_step"} for row in rows]


def killed(command: str, place: Path, seed: int) -> list[Path]:
    """Return the folders of an undisturbed run and of `N_RUNS` that were killed and resumed."""
    where = [str(TESTS.parent), str(TESTS)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(where), "OMP_NUM_THREADS": "1"}
    if os.access("/dev/shm", os.W_OK):  # another file system than the checkpoints'
        environment["TMPDIR"] = "/dev/shm"
    done = subprocess.run(
        [
            sys.executable,
            str(TESTS / "killed_runs.py"),
            command,
            str(place),
            str(N_RUNS),
            str(seed),
        ],
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
    return [Path(run["folder"]) for run in (whole, *runs)]


def said(run: dict[str, Any]) -> str:
    return f"{run['ends']}\n{(Path(run['folder']) / 'said.txt').read_text()[-6000:]}"


def assert_same(got: Path, expected: Path, name: str = "") -> None:
    got, expected = got / "sae" / name, expected / "sae" / name
    ours, theirs = (load_file(f / "training/sae_weights.safetensors") for f in (got, expected))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in theirs), got
    ours, theirs = (json.loads((f / "figures.json").read_text()) for f in (got, expected))
    assert ours == theirs, got
