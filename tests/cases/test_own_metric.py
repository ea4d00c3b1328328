"""A metric class of one's own, named in a configuration, needs no other code."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from saerepgeo.cli import main
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import CloudMetric
from saerepgeo.sae import new_sae, save_sae
from saerepgeo.types import Estimate

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


class Spread(CloudMetric):
    """Root mean square distance of the points from their centroid."""

    def of(self, cloud: LabeledCloud) -> Estimate:
        x = cloud.coordinates()
        return Estimate((x - x.mean(0)).square().sum(1).mean().sqrt(), cloud.n_points, 0)


OWN = {"class_path": f"{__name__}.Spread"}
CKA = {"class_path": "saerepgeo.metrics.LinearCKA"}
OF_SAE = ("latents", "random", "random 1")
FEW = {"n_permutations": 9, "n_nulls": 4, "n_subsamples": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "case1": ("Stratification", {"noise_levels": [0.0, 0.5], "noise_scales": ["relative"]}),
    "case2": ("Structure", {"protocols": ["sound"], **FEW}),
}


def config(
    folder: Path, case: str, data: dict[str, Any], sae: Path, **trainer: Any
) -> dict[str, Any]:
    name, arguments = CASES[case]
    callback = f"saerepgeo.cases.{name.lower()}.artifacts.{name}Artifacts"
    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(folder), "name": "logs", "default_hp_metric": False},
    }
    arguments = {"sae": {"path": str(sae)}, "metrics": [OWN], **arguments}
    return {
        "trainer": {
            "accelerator": "cpu",
            "logger": logger,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(folder),
            "callbacks": [{"class_path": callback, "init_args": {"dirpath": str(folder)}}],
            **trainer,
        },
        "model": {"class_path": f"saerepgeo.{name}Module", "init_args": arguments},
        "data": {"class_path": "saerepgeo.ActivationDataModule", "init_args": data},
    }


def long_table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path_factory.mktemp("sae"))


@pytest.mark.parametrize("case", list(CASES))
def test_a_metric_named_in_a_configuration_gives_rows_scalars_and_a_figure(
    case: str, tmp_path: Path, sae: Path, tiny_data: dict[str, Any], monkeypatch: Any
) -> None:
    sys.modules.setdefault(__name__, sys.modules[Spread.__module__])
    monkeypatch.setattr(sys, "argv", ["saerepgeo"])
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config(tmp_path, case, tiny_data, sae)))
    assert main(["test", "--config", str(file)]) == 0
    rows = [row for row in long_table(tmp_path) if row["metric"] == "spread"]
    assert {row["concept"] for row in rows} == {"months", "days"}
    assert {row["space"].split("+")[0] for row in rows} == {"residuals", "latents", "random"}
    assert all(float(row["value"]) > 0 and int(row["n"]) > 0 for row in rows)
    if case == "case2":
        assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in rows)
        assert all(0 < float(row["p"]) <= 1 for row in rows)
    events = EventAccumulator(str(next((tmp_path / "logs").rglob("events.*")).parent))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "spread" in tag]
    assert len(tags) == 2 * 3  # concepts × spaces
    pictures = {path.name for path in tmp_path.glob("*.svg")}
    assert any(name.startswith(("metrics_", "spread_by_noise")) for name in pictures)
    drawn = [path.read_text() for path in tmp_path.glob("*.svg")]
    assert any("spread" in text for text in drawn)


def test_several_saes_are_several_spaces(
    tmp_path: Path, sae: Path, tiny_data: dict[str, Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["saerepgeo"])
    wide = save_sae(new_sae("topk", d_in=32, d_sae=128, k=4), tmp_path / "wide")
    settings = config(tmp_path, "case2", tiny_data | {"concepts": ["days"]}, sae)
    settings["model"]["init_args"] |= {"sae": [{"path": str(sae)}, {"path": str(wide)}]}
    settings["model"]["init_args"] |= {"metrics": [OWN, CKA], "n_random": 2}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert main(["test", "--config", str(file)]) == 0
    rows = [row for row in long_table(tmp_path) if row["metric"] == "spread"]
    spaces = [(row["sae"], row["space"]) for row in rows]
    latents = [(name, space) for name in (sae.name, "wide") for space in OF_SAE]
    assert sorted(spaces) == sorted([("", "residuals"), *latents])
    assert len({row["value"] for row in rows}) == len(rows)
    beside = [row for row in long_table(tmp_path) if row["metric"] == "spread/beside_random"]
    assert {(row["sae"], row["space"]) for row in beside} == {
        (sae.name, "latents"),
        ("wide", "latents"),
    }
    assert all(float(row["p"]) in (1 / 3, 2 / 3, 1.0) for row in beside), "two dictionaries"
    pairs = [row for row in long_table(tmp_path) if row["metric"] == "cka"]
    assert {(row["sae"], row["space"]) for row in pairs} == set(latents)
    settings["model"]["init_args"] |= {"sae": [{"path": str(sae)}, {"path": str(sae)}]}
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises((ValueError, SystemExit)):
        main(["test", "--config", str(file)])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["case1", pytest.param("case2", marks=pytest.mark.thorough)])
def test_two_processes_give_the_table_of_one_and_share_the_work(
    case: str, tmp_path: Path, sae: Path, tiny_data: dict[str, Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["saerepgeo"])
    tables = []
    for n_devices in (1, 2):
        folder = tmp_path / str(n_devices)
        folder.mkdir()
        settings = config(folder, case, tiny_data, sae, devices=n_devices, strategy="ddp")
        settings["model"]["init_args"].pop("metrics")
        if n_devices == 1:
            settings["trainer"].pop("strategy")
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(settings))
        if n_devices == 1:
            assert main(["test", "--config", str(file)]) == 0
        else:
            command = [sys.executable, "-m", "saerepgeo", "test", "--config", str(file)]
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=600
            )
            assert done.returncode == 0, done.stderr
        rows = long_table(folder)
        tables.append(sorted(tuple(row.values()) for row in rows))
        order = list(dict.fromkeys(row["concept"] for row in rows))
        assert sorted(order) == ["days", "months"]
    assert tables[0] == tables[1]
    of_two = {path.name for path in (tmp_path / "2").glob("*.csv")}
    assert of_two == {path.name for path in (tmp_path / "1").glob("*.csv")}
