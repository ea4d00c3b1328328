"""The commands run on a device other than the CPU, the language model with them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from training_process import FEW_DRAWS, analysis, write_config, write_family

from saerepgeo.cases.intervention.displacement import displacement_rows
from saerepgeo.cli import main
from saerepgeo.experiment import main as experiment
from saerepgeo.report.files import read_rows
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

# Lightning's advice and jsonargparse's remarks on Lightning: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")
ON_DEVICE = {"accelerator": "emulated", "strategy": "emulated"}


@pytest.fixture(autouse=True)
def _own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulated: torch.device, undrawn: None
) -> None:
    """The emulated device, and a cache that no other test reads."""
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["saerepgeo"])


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path / "topk")


def configured(config: Path, model: dict[str, Any] | None = None, **trainer: Any) -> list[str]:
    """Return the arguments for a configuration with other settings, on the device."""
    settings = yaml.safe_load(config.read_text())
    settings["trainer"] |= ON_DEVICE | trainer
    if model is not None:
        settings["model"] = model
    config.write_text(yaml.safe_dump(settings))
    return ["--config", str(config)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "sae" / "training" / "sae_weights.safetensors")


@pytest.fixture
def data(few_prompts: dict[str, Any]) -> dict[str, Any]:
    """Few prompts: every operation on the device passes through Python."""
    return few_prompts


def test_a_fit_is_that_of_the_cpu(tmp_path: Path, data: dict[str, Any], sae: Path) -> None:
    folders = [tmp_path / name for name in ("cpu", "device")]
    for folder in folders:
        folder.mkdir()
        config = write_config(folder, data, sae, 4)
        arguments = configured(config) if folder.name == "device" else ["--config", str(config)]
        assert main(["fit", *arguments]) == 0
    expected, found = map(weights, folders)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_family_is_that_of_the_cpu(tmp_path: Path, data: dict[str, Any], sae: Path) -> None:
    found: list[dict[str, torch.Tensor]] = []
    for name in ("cpu", "device"):
        folder = tmp_path / name
        folder.mkdir()
        config = write_family(folder, data, sae, 3)
        arguments = configured(config) if name == "device" else ["--config", str(config)]
        assert main(["fit", *arguments]) == 0
        files = {each: folder / "sae" / each / "training" for each in ("loaded", "topk", "batch")}
        read = {n: load_file(at / "sae_weights.safetensors") for n, at in files.items()}
        found.append({f"{n} {key}": x for n, own in read.items() for key, x in own.items()})
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, rtol=1e-4, atol=1e-5, msg=key)


def test_a_resumed_fit_is_the_uninterrupted_one(tmp_path, data, sae):
    arguments = configured(write_config(tmp_path, data, sae, 4))
    assert main(["fit", *arguments]) == 0
    whole = weights(tmp_path)
    (middle,) = (tmp_path / "checkpoints").glob("*step=2*.ckpt")
    assert main(["fit", *arguments, "--ckpt_path", str(middle)]) == 0
    assert all(weights(tmp_path)[name].equal(tensor) for name, tensor in whole.items())


def test_pretraining(tmp_path, data, sae):
    init = {"architecture": "topk", "d_in": 32, "d_sae": 96, "options": {"k": 4}}
    model = {
        "class_path": "saerepgeo.cases.SeparabilityModule",
        "init_args": {"sae": init, "weight": 0.0},
    }
    config = write_config(tmp_path, data | {"concept_fraction": 0.0}, sae, 3)
    assert main(["fit", *configured(config, model)]) == 0
    assert (tmp_path / "sae" / "sae_weights.safetensors").is_file()


def test_case_1(tmp_path, data, sae):
    options = {"n_draws": 1, "noise_levels": [0.0, 0.1]}
    config = write_config(tmp_path, data, sae, 1)
    settings = analysis("stratification", sae, tmp_path / "out", **options)
    assert main(["test", *configured(config, **settings)]) == 0
    assert read_rows(tmp_path / "out" / "results.csv")


@pytest.mark.parametrize("matrix_points", [2048, 20], ids=["few points", "many points"])
def test_case_2(tmp_path, data, sae, monkeypatch, matrix_points):
    monkeypatch.setattr("saerepgeo.geometry.clouds.labeled.MATRIX_POINTS", matrix_points)
    config = write_config(tmp_path, data, sae, 1)
    settings = analysis("structure", sae, tmp_path / "out", **FEW_DRAWS)
    assert main(["test", *configured(config, **settings)]) == 0
    assert read_rows(tmp_path / "out" / "results.csv")


@pytest.mark.thorough  # UMAP compiles itself
def test_case_2_as_the_paper_has_it(tmp_path, data, sae):
    config = write_config(tmp_path, data, sae, 1)
    settings = analysis("structure", sae, tmp_path / "out", protocols=["paper"])
    assert main(["test", *configured(config, **settings)]) == 0
    assert read_rows(tmp_path / "out" / "results.csv")


def test_case_3(tmp_path, data, sae, monkeypatch):
    monkeypatch.setattr(
        "saerepgeo.cases.intervention.interventions.displacement_rows",
        lambda points, _, generator: displacement_rows(points, (1.0, 1.5), generator, 2, 2),
    )
    monkeypatch.setattr(  # UMAP reads NumPy arrays, and takes long to compile
        "saerepgeo.cases.structure.paper_embedding.paper_embedding",
        lambda points: points.detach().cpu().double()[:, :2],
    )
    settings = analysis("intervention", sae, tmp_path / "out")
    settings["model"]["class_path"] = "saerepgeo.cases.SeparabilityModule"
    config = write_config(tmp_path, data, sae, 1)
    assert main(["test", *configured(config, **settings)]) == 0
    assert list((tmp_path / "out").glob("*.csv"))


def test_a_cell_of_an_experiment(tmp_path, data, sae):
    base = write_config(tmp_path, data | {"heldout_items": 0.3}, sae, 3)
    configured(base, callbacks=None)
    settings = {
        "base": str(base),
        "output": str(tmp_path / "out"),
        "regularizers": ["gromov_wasserstein"],
        "doses": [0.5],
        "seeds": [0],
        "checkpoint_every": 2,
        "n_contexts": 2,
        "n_processes": 1,
    }
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert experiment(["--config", str(path)]) == 0
    assert read_rows(tmp_path / "out" / "finetune_results.csv")


def test_a_geometry_table_is_that_of_the_cpu_and_of_one_process(data, emulated, monkeypatch):
    from saerepgeo import ActivationDataModule, geometry_table

    source, made = ActivationDataModule(**data), new_sae("topk", d_in=32, d_sae=96, k=4)
    expected = geometry_table(source, made).rows
    # nothing is to be joined: there is no process group
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    found = geometry_table(source, made.to(emulated)).rows
    for row, other in zip(found, expected, strict=True):
        numbers = {name: value for name, value in other.items() if not isinstance(value, str)}
        assert {n: row[n] for n in numbers} == pytest.approx(numbers, rel=1e-4, nan_ok=True)
