"""Imports go one way; the package imports cheaply; every shipped YAML is a valid command line."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "saerepgeo"

LAYERS = [
    ("bounds", "types", "lazy", "files", "shipped", "yaml_files"),
    ("geometry",),
    ("lm",),
    ("sae", "data"),
    ("metrics", "report"),
    ("callbacks", "cases"),
    ("cli", "experiment"),
    ("__main__", "__init__"),
]
"""Each imports from its own layer and those above it in this list."""


def layer_of(name: str) -> int:
    found = [index for index, names in enumerate(LAYERS) if name in names]
    assert found, f"`{name}` stands in no layer: add it where its imports allow"
    return found[0]


def imports_of(path: Path) -> set[str]:
    """Return the parts of saerepgeo that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("saerepgeo."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("saerepgeo.")]
            found |= {name.split(".")[1] for name in names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for other in imports_of(path):
        assert layer_of(other) <= layer_of(own), f"{own} imports {other}"
        if own == "cases":
            assert other != "lm", "a LightningModule sees activations only"


def blocked_import(statement: str, *blocked: str) -> subprocess.CompletedProcess[str]:
    lines = [f"import sys; [sys.modules.__setitem__(n, None) for n in {blocked!r}]", statement]
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_every_public_name_of_a_package_is_there(path):
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    for name in getattr(package, "__all__", ()):
        assert getattr(package, name) is not None
        assert name in dir(package)
        if "TYPE_CHECKING" in path.read_text():  # a module of the name would take its place
            assert not (path.parent / f"{name}.py").exists()


def test_the_package_imports_without_torch():
    done = blocked_import("import saerepgeo", "torch", "lightning", "transformers")
    assert done.returncode == 0, done.stderr


def test_geometry_stands_alone():
    heavy = ("lightning", "torchmetrics", "transformer_lens", "sae_lens", "transformers", "ot")
    light = ("jaxtyping", "matplotlib", "datasets", "umap", "tensorboard", "jsonargparse")
    done = blocked_import("import saerepgeo.geometry", *heavy, *light)
    assert done.returncode == 0, done.stderr


def configurations() -> list[tuple[str, list[str]]]:
    cases = [
        (command, [name])
        for command, name in (
            ("fit", "case3.yaml"),
            ("fit", "pretrain.yaml"),
            ("fit", "pretrain_many.yaml"),
            ("fit", "family.yaml"),
            ("test", "case1.yaml"),
            ("test", "case2.yaml"),
            ("test", "case3.yaml"),
        )
    ]
    overlays = sorted((ROOT / "configs" / "models").glob("*.yaml"))
    cases.append(("fit", ["pretrain.yaml", "split.yaml"]))
    return cases + [("test", ["case2.yaml", f"models/{path.name}"]) for path in overlays]


@pytest.mark.parametrize(("command", "names"), configurations(), ids=str)
def test_every_shipped_configuration_is_a_valid_command_line(command, names, capsys, monkeypatch):
    from saerepgeo.cli import main

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["saerepgeo"])
    files = [part for name in names for part in ("--config", f"configs/{name}")]
    with pytest.raises(SystemExit) as stopped:
        main([command, *files, "--print_config"])
    assert stopped.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"].startswith("saerepgeo.")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("case*.yaml")), ids=str)
def test_the_first_line_of_a_configuration_runs_it(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# python -m saerepgeo ")
    assert f"--config configs/{path.name}" in first
