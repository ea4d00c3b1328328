"""A second run of the same settings finds everything in the cache: the model is never loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from saerepgeo.callbacks.lm_loss import sae_fingerprint
from saerepgeo.cli import main
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

CALLBACKS = "saerepgeo.callbacks"
FEW_DRAWS = {"protocols": ["sound"], "n_permutations": 3, "n_nulls": 2, "n_subsamples": 3}
ONE_LEVEL = {"n_draws": 1, "noise_levels": [0.0]}
# Lightning's advice and jsonargparse's remarks on Lightning: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path / "topk")


@pytest.fixture(autouse=True)
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cache of its own; the names of the models loaded so far."""
    from saerepgeo.lm import sources as lm_sources

    seen: list[str] = []
    load = lm_sources.load_model
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["saerepgeo"])
    monkeypatch.setattr(
        "saerepgeo.lm.frozen.load_model", lambda name: seen.append(name) or load(name)
    )
    return seen


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr("saerepgeo.lm.frozen.load_model", refuse)


def run(command: str, folder: Path, model: str, arguments: dict[str, Any], data: Any, **own: Any):
    """Run the command line in this process."""
    trainer = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
    }
    config = {
        "trainer": trainer | own,
        "model": {"class_path": f"saerepgeo.{model}", "init_args": arguments},
        "data": {"class_path": "saerepgeo.data.ActivationDataModule", "init_args": data},
    }
    folder.mkdir(exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main([command, "--config", str(path)]) == 0


def fit(folder: Path, sae: Path, data: Any, weight: float = 0.5) -> dict[str, torch.Tensor]:
    """Return the weights that a fit like configs/case3.yaml ends with."""
    callbacks = [
        {"class_path": f"{CALLBACKS}.lm_loss.LMLoss", "init_args": {"n_contexts": 6}},
        {"class_path": f"{CALLBACKS}.sae_export.SAEExport", "init_args": {"dirpath": str(folder)}},
    ]
    run(
        "fit",
        folder,
        "SeparabilityModule",
        {"sae": {"path": str(sae)}, "weight": weight},
        data,
        callbacks=callbacks,
        max_steps=5,
        max_epochs=-1,
        val_check_interval=5,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=-1,
        enable_checkpointing=False,
    )
    return load_file(folder / "training" / "sae_weights.safetensors")


def test_a_second_fit(tmp_path, sae, tiny_data, loads, monkeypatch):
    first = fit(tmp_path / "first", sae, tiny_data)
    assert len(loads) == 1
    forbid_loading(monkeypatch)
    second = fit(tmp_path / "second", sae, tiny_data)
    assert all(second[name].equal(tensor) for name, tensor in first.items())
    figures = [(tmp_path / name / "figures.json").read_text() for name in ("first", "second")]
    assert figures[0] == figures[1]
    assert "val/ce_recovered" in figures[0]


def test_another_weight_loads_the_model_for_its_final_figures_alone(
    tmp_path, sae, tiny_data, loads, monkeypatch
):
    from saerepgeo.cases.separability.module import SeparabilityModule

    fit(tmp_path / "first", sae, tiny_data)
    at_step = []
    step = SeparabilityModule.training_step
    monkeypatch.setattr(
        SeparabilityModule,
        "training_step",
        lambda self, *args: at_step.append(len(loads)) or step(self, *args),
    )
    fit(tmp_path / "second", sae, tiny_data, weight=0.1)
    assert at_step == [1] * 5  # that of the first run
    assert len(loads) == 2


def test_without_a_cache_of_the_stream_nothing_of_it_is_kept(tmp_path, sae, tiny_data):
    fit(tmp_path / "run", sae, tiny_data | {"cache_stream": False})
    from saerepgeo.cli.cache import sizes_by_kind

    assert "background points" not in sizes_by_kind()
    assert sizes_by_kind()["concept activations"][0] == 2


@pytest.mark.parametrize(
    ("module", "arguments", "callback"),
    [
        pytest.param(
            "Stratification",
            {"n_draws": 1, "noise_levels": [0.0, 0.1]},
            "stratification",
            marks=pytest.mark.thorough,
        ),
        ("Structure", FEW_DRAWS, "structure"),
    ],
    ids=["case1", "case2"],
)
def test_a_second_test(tmp_path, sae, tiny_data, loads, monkeypatch, module, arguments, callback):
    for number in range(2):
        folder = tmp_path / str(number)
        artifacts = {
            "class_path": f"saerepgeo.cases.{callback}.artifacts.{callback.title()}Artifacts",
            "init_args": {"dirpath": str(folder)},
        }
        settings = {"sae": {"path": str(sae)}} | arguments
        data = tiny_data | {"concepts": ["days"]}
        run("test", folder, f"{module}Module", settings, data, callbacks=[artifacts])
        assert len(loads) == 1
        assert list(folder.glob("*.csv"))
        forbid_loading(monkeypatch)


def test_a_second_test_of_case_3(tmp_path, sae, tiny_data, loads, monkeypatch):
    """Its interventions take half a minute, see only activations, and have tests of their own."""
    seen = []
    monkeypatch.setattr(
        "saerepgeo.cases.separability.module.intervene",
        lambda sae, batch, *_, **__: seen.append(batch),
    )
    for number in range(2):
        settings = {"sae": {"path": str(sae)}}
        run("test", tmp_path / str(number), "SeparabilityModule", settings, tiny_data)
        assert len(loads) == 1
        forbid_loading(monkeypatch)
    assert [batch.concept for batch in seen] == ["months", "days"] * 2
    assert all(batch.residuals.equal(seen[i].residuals) for i, batch in enumerate(seen[2:]))


def test_the_fingerprint_follows_weights_and_configuration():
    made = [new_sae("topk", d_in=8, d_sae=16, k=k) for k in (2, 2, 3)]
    for model in made[1:]:
        model.load_state_dict(made[0].state_dict())
    first, same, other = map(sae_fingerprint, made)
    assert first == same
    assert first != other
    with torch.no_grad():
        made[1].sae.b_dec[3] += 1e-6
    assert sae_fingerprint(made[1]) != first
