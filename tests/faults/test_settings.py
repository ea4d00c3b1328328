"""Settings that are right: seeds of their own, nulls, several of one parent."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from training_process import write_config

from saerepgeo.bounds import check_settings
from saerepgeo.cases import SeparabilityModule
from saerepgeo.cli import main
from saerepgeo.data import ActivationDataModule
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae


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


def test_settings_of_one_parent_all_reach_the_cells() -> None:
    from saerepgeo.experiment.runner import _parse

    options = ["lm", "gpt2", "--settings.trainer.max_steps=5", "hook_name", "blocks.1"]
    options = [f"--settings.data.init_args.{o}" if o in ("lm", "hook_name") else o for o in options]
    options += ["--settings.model.init_args.sae.path", "null"]
    experiment, _ = _parse(["--config", "configs/case3_experiment.yaml", *options])
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
    import inspect

    given = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is not parameter.empty
    }
    check_settings(cls, given)


def test_loggers_see_both_seeds(tmp_path: Path) -> None:
    data = ActivationDataModule(seed=3)
    data.trainer = Trainer(logger=TensorBoardLogger(str(tmp_path)), accelerator="cpu")
    assert data.hparams["seed"] == 3
    assert data.hparams_initial["data_seed"] == 3
    assert "seed" not in data.hparams_initial
