"""The wheel holds the whole package, its configurations and its SAE: no repository is needed."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1]
BESIDE = ("configs", "checkpoints")
"""Folders of the repository that the wheel holds inside the package."""
SHIPPED = (".py", ".json", ".jsonl.gz", ".txt", ".typed", ".css", ".js", ".html")


def package_files(root: Path) -> set[str]:
    files = (p for p in (root / "saerepgeo").rglob("*") if p.is_file())
    return {str(p.relative_to(root)) for p in files if p.name.endswith(SHIPPED)}


def files_in(folder: Path, root: Path = ROOT) -> set[str]:
    """Return all files in a folder but for byte code, below `root`."""
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(root)) for p in files}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy: building leaves files behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("saerepgeo", *BESIDE):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "-w", str(target), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(target.glob("saerepgeo-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, cwd: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_missing_and_nothing_foreign_is_inside(installed: Path) -> None:
    beside = {path: ROOT / path for name in BESIDE for path in files_in(ROOT / name)}
    expected = package_files(ROOT) | {f"saerepgeo/{path}" for path in beside}
    assert files_in(installed / "saerepgeo", installed) == expected
    for path, original in beside.items():
        assert (installed / "saerepgeo" / path).read_bytes() == original.read_bytes()
    others = {p.name for p in installed.iterdir()} - {"saerepgeo"}
    assert {name.split("-")[0] for name in others} == {"saerepgeo"}
    assert all(name.endswith(".dist-info") for name in others)


def test_data_of_the_package_are_read_from_where_it_is(installed: Path, tmp_path: Path) -> None:
    code = (
        "import saerepgeo\n"
        "from saerepgeo.data.prompts import load_prompts\n"
        "from saerepgeo.data.text import open_text\n"
        "print(saerepgeo.__file__)\n"
        "print(len(load_prompts().names), bool(next(iter(open_text('sample').documents()))))\n"
    )
    where, found = run(installed, tmp_path, "-c", code).splitlines()
    assert where.startswith(str(installed))
    assert found == "9 True"


def test_configurations_and_the_sae_are_found_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    code = (
        "from saerepgeo import load_sae\n"
        "from saerepgeo.cli import main\n"
        "from saerepgeo.experiment.grid import Experiment\n"
        "from saerepgeo.experiment.reproduce import _config_folder, _overlay\n"
        "assert load_sae(path='checkpoints/smollm2-135m').sae.cfg.d_sae == 4608\n"
        "_overlay(_config_folder(None), 'gpt2-small')\n"
        "grid = Experiment('configs/case3.yaml', 'out', ['aedp'], [0.1], [0])\n"
        "assert grid.folder(grid.cells[0])\n"
        "main(['fit', '--config', 'case3', '--config=configs/models/gpt2-small.yaml',"
        " '--trainer.max_steps', '7', '--print_config'])\n"
    )
    settings = yaml.safe_load(run(installed, tmp_path, "-c", code))
    assert settings["trainer"]["max_steps"] == 7
    assert settings["trainer"]["gradient_clip_val"] == 1.0
    assert settings["data"]["init_args"]["lm"] == "openai-community/gpt2"
    assert not list(tmp_path.iterdir())


def test_help_needs_no_repository(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "-m", "saerepgeo", "--help")
    assert shown.startswith("usage: python -m saerepgeo ")
    lines = shown.splitlines()
    for command in ("fit", "validate", "test", "experiment", "reproduce", "compare", "cache"):
        told = [line for line in lines if line.split()[:1] == [command]]
        assert len(told) == 1
        assert len(told[0].split()) > 4, "what it is for stands beside it"
    assert "predict" not in shown
    assert max(map(len, lines)) <= 100
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["fit", pytest.param("test", marks=pytest.mark.thorough)])
def test_help_of_a_subcommand_is_a_screenful(installed: Path, tmp_path: Path, command: str) -> None:
    shown = run(installed, tmp_path, "-m", "saerepgeo", command, "--help")
    assert len(shown.splitlines()) < 70
    assert f"  python -m saerepgeo {command} --config configs/case" in shown
    for option in ("--trainer.devices", "--model.help saerepgeo.", "--ckpt_path"):
        assert option in shown
    assert ("--trainer.max_steps" in shown) is (command == "fit")
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.thorough
def test_options_that_help_leaves_out_are_in_the_printed_config(
    installed: Path, tmp_path: Path
) -> None:
    arguments = ("--trainer.detect_anomaly", "true", "--print_config")
    shown = run(installed, tmp_path, "-m", "saerepgeo", "fit", *arguments)
    assert "detect_anomaly: true" in shown
    assert "weights_only: true" in shown


@pytest.mark.thorough
def test_the_default_run_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Everything is fetched: torch, what the wheel asks for, the model; a network is needed."""
    place, python = tmp_path / "place", str(tmp_path / "venv" / "bin" / "python")
    place.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    version = torch.__version__.partition("+")[0]
    for wanted in (f"torch=={version}", str(wheel)):
        command = [python, "-m", "pip", "install", "--quiet", wanted]
        done = subprocess.run(command, capture_output=True, text=True)
        is_alone = "No matching distribution" in done.stderr or "connection" in done.stderr.lower()
        if done.returncode and is_alone:
            pytest.skip(f"no package index: {done.stderr.splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    options = ("--trainer.max_steps=2", "--data.init_args.batch_size=256", "--trainer.accelerator")
    done = subprocess.run(
        [python, "-m", "saerepgeo", "fit", "--config", "case3", *options, "cpu"],
        cwd=place,
        env=kept | {"SAEREPGEO_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (place / "outputs/case3_intervention_analysis/sae/sae_weights.safetensors").is_file()
