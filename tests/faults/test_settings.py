"""Settings that are right: seeds of their own, nulls, several of one parent."""

import inspect
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import yaml
from faults.faults import Place
from faults.test_faults import ASIDES, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from training_process import write_config

from saerepgeo.bounds import check_settings
from saerepgeo.cases import SeparabilityModule
from saerepgeo.cli import GeometryCLI, main
from saerepgeo.cli.checks import TrainerSettings, check_run
from saerepgeo.data import ActivationDataModule
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.sae_source import SAESource


@pytest.fixture
def config(tmp_path: Path, tiny_data: dict[str, Any]) -> Path:
    sae = save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path / "source")
    return write_config(tmp_path, tiny_data, sae, steps=2)


def test_data_and_module_each_take_a_seed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["saerepgeo"])
    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(config.parent / "log"), "name": "own"},
    }
    content = yaml.safe_load(config.read_text())
    content["trainer"]["logger"] = logger
    config.write_text(yaml.safe_dump(content))
    options = ["--data.seed", "1", "--model.seed", "2"]
    assert main(["fit", "--config", str(config), *options]) == 0
    (written,) = (config.parent / "log").rglob("hparams.yaml")
    shown = yaml.safe_load(written.read_text())
    assert (shown["data_seed"], shown["seed"]) == (1, 2)


def test_settings_are_written_by_a_run_that_begins(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["saerepgeo"])
    assert main(["fit", "--config", str(config)]) == 0
    written = yaml.safe_load((config.parent / "resolved_config.yaml").read_text())
    assert written["trainer"]["max_steps"] == 2


def test_settings_of_a_run_in_a_bucket_are_written_there(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    monkeypatch.setattr("sys.argv", ["saerepgeo"])
    bucket = fsspec.filesystem("memory")
    options = ["--trainer.default_root_dir", "memory://bucket/run"]
    assert main(["fit", "--config", str(config), *options]) == 0
    written = yaml.safe_load(bucket.cat("/bucket/run/resolved_config.yaml"))
    assert written["trainer"]["max_steps"] == 2
    assert not (config.parent / "memory:").exists()


def test_settings_of_one_parent_all_reach_the_cells() -> None:
    from saerepgeo.experiment.runner import _parse

    options = ["lm", "gpt2", "--settings.trainer.max_steps=5", "hook_name", "blocks.1"]
    options = [f"--settings.data.init_args.{o}" if o in ("lm", "hook_name") else o for o in options]
    options += ["--settings.model.init_args.sae.path", "null"]
    experiment = _parse(["--config", "configs/case3_experiment.yaml", *options])
    settings = experiment.settings
    assert settings["data.init_args.lm"] == "gpt2"
    assert settings["data.init_args.hook_name"] == "blocks.1"
    assert settings["trainer.max_steps"] == 5
    assert settings["model.init_args.sae.path"] is None
    assert settings["data.init_args.batch_size"] == 2048, "of the file"


def test_python_users_meet_the_same_bounds() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be an integer ≥ 1, got 0"):
        ActivationDataModule(batch_size=0)
    with pytest.raises(ValueError, match="`seed` must be an integer ≥ 0, got -1"):
        ActivationDataModule(seed=-1)


@pytest.mark.parametrize("cls", [ActivationDataModule, SeparabilityModule])
def test_defaults_are_in_bounds(cls: type) -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is not parameter.empty
    }
    check_settings(cls, defaults)


def test_a_device_without_float64_is_refused() -> None:
    strategy = SingleDeviceStrategy(torch.device("mps"), accelerator=CPUAccelerator())
    trainer = Trainer(strategy=strategy, logger=False)
    module = SeparabilityModule(SAESource(architecture="topk", d_in=32, d_sae=64))
    with pytest.raises(ValueError, match="must be cpu or gpu, for figures need float64, got mps"):
        check_run(trainer, module, ActivationDataModule(), "fit")


def test_loggers_see_both_seeds(tmp_path: Path) -> None:
    data = ActivationDataModule(seed=3)
    data.trainer = Trainer(logger=TensorBoardLogger(str(tmp_path)), accelerator="cpu")
    assert data.hparams["seed"] == 3
    assert data.hparams_initial["data_seed"] == 3
    assert "seed" not in data.hparams_initial


def names_of(key: str, cls: type, but: tuple[str, ...] = ()) -> list[str]:
    own = inspect.signature(cls).parameters if key != "trainer" else cls.__annotations__
    return [f"{key}.{name}" for name in own if name not in but]


NAMES = [
    *names_of("data.init_args", ActivationDataModule, ("lm", "text", "prompts")),
    *names_of("model.init_args", SeparabilityModule),
    *names_of("trainer", TrainerSettings),
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.integers(-2, 70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=2))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_is_taken_or_refused_in_one_line(
    place: Place, monkeypatch: Any, capfd: Any, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(GeometryCLI, "fit", lambda cli, **given: None)  # all is checked before
    arguments, path = place.command(), place.folder / "run.yaml"
    tree = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split(".")
        inner = tree
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    status = run(arguments, monkeypatch)
    said = [line for line in capfd.readouterr().err.splitlines() if not ASIDES.match(line)]
    if status != 0:
        (line,) = said
        assert (status, line[:7]) == (2, "error: "), line
        assert line.isprintable(), repr(line)
        assert len(line) < 700
