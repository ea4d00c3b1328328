"""The place that every fault spoils: a small model, an SAE of it, and a configuration."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.faults import Place
from training_process import write_config

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae


@pytest.fixture(scope="session")
def small_sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "sae"
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), folder)


@pytest.fixture
def place(
    tmp_path: Path, tiny_lm: Path, text_file: Path, tiny_data: dict[str, Any], small_sae: Path
) -> Place:
    (tmp_path / "given").mkdir()
    config = yaml.safe_load(write_config(tmp_path, tiny_data, small_sae, 3).read_text())
    (tmp_path / "run.yaml").unlink()
    logger = {"save_dir": str(tmp_path / "out" / "logs"), "name": "run"}
    name = "lightning.pytorch.loggers.TensorBoardLogger"
    config["trainer"]["logger"] = {"class_path": name, "init_args": logger}
    config["trainer"]["default_root_dir"] = str(tmp_path / "out")
    for callback in config["trainer"]["callbacks"]:
        for name, value in callback["init_args"].items():
            if name == "dirpath":
                callback["init_args"][name] = str(tmp_path / "out" / Path(value).name)
    return Place(tmp_path / "given", tiny_lm, small_sae, text_file, copy.deepcopy(config))
