"""The wheel holds the whole package and serves without the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = (".py", ".json", ".jsonl.gz", ".txt", ".typed", ".css", ".js", ".html")


def package_files(root: Path) -> set[str]:
    files = (p for p in (root / "saerepgeo").rglob("*") if p.is_file())
    return {str(p.relative_to(root)) for p in files if p.name.endswith(SHIPPED)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy: building leaves files behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT / "saerepgeo", source / "saerepgeo", ignore=shutil.ignore_patterns("__pycache__")
    )
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
    assert package_files(installed) == package_files(ROOT)
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
