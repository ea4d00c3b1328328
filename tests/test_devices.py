"""`devices: auto` on a machine with eight: what commands start; numbers that do not divide."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from training_process import analysis, run_fit, write_config

from saerepgeo.cli import GeometryCLI, OneDeviceCLI, main
from saerepgeo.data import ActivationDataModule
from saerepgeo.report.files import read_rows
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

# Lightning's advice and jsonargparse's remarks on Lightning: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


@pytest.fixture
def config(
    tmp_path: Path, tiny_data: dict[str, Any], emulated: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A configuration on a machine with eight devices."""
    count = "emulated_device.EmulatedAccelerator.auto_device_count"
    monkeypatch.setattr(count, staticmethod(lambda: 8))
    sae = save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path / "topk")
    path = write_config(tmp_path, tiny_data, sae, 1)
    settings = yaml.safe_load(path.read_text())
    settings["trainer"] |= {"accelerator": "emulated", "callbacks": None}
    path.write_text(yaml.safe_dump(settings))
    return path


def n_processes(config: Path, command: str, *options: str, kind: type = GeometryCLI) -> int:
    """Return how many processes a command would start."""
    seen = []

    class Watched(kind):  # type: ignore[misc,valid-type]
        def before_fit(self) -> None:
            seen.append(self.trainer.world_size)

        def fit(self, **_: Any) -> None: ...

        before_validate = before_test = before_fit
        validate = test = fit

    assert main([command, "--config", str(config), *options], Watched) == 0
    return seen[0]


@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        ("fit", (), 8),
        ("validate", (), 1),
        ("test", (), 1),
        ("test", ("--trainer.devices=2",), 2),
        ("test", ("--trainer.strategy=ddp",), 8),
    ],
)
def test_fit_takes_all_devices_and_an_analysis_one_unless_told(config, command, options, expected):
    assert n_processes(config, command, *options) == expected


def test_processes_that_something_else_started_are_taken_as_they_are(config, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    numbers = {"RANK": 0, "GROUP_RANK": 0, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 8, "WORLD_SIZE": 8}
    for name, number in numbers.items():  # those of torchrun
        monkeypatch.setenv(name, str(number))
    assert n_processes(config, "test") == 8


def test_a_command_inside_another_one_takes_one_device(config):
    assert n_processes(config, "fit", kind=OneDeviceCLI) == 1
    assert n_processes(config, "test", "--trainer.strategy=ddp", kind=OneDeviceCLI) == 1
    with pytest.raises(ValueError, match=r"`trainer.devices` must be one device here.* got 2: run"):
        n_processes(config, "fit", "--trainer.devices=2", kind=OneDeviceCLI)


@pytest.mark.parametrize("devices", [3, 5, 6, 7])
def test_what_does_is_said_where_the_number_of_devices_does_not(monkeypatch, devices):
    def start(n: int, **settings: int) -> None:
        monkeypatch.setattr(ActivationDataModule, "_world_size", n)
        ActivationDataModule(**settings).setup("fit")

    with pytest.raises(ValueError, match=f"must divide `n_lanes` = 8, got {devices}") as refused:
        start(devices)
    fewer, lanes, size = map(int, re.findall(r"to (\d+)", str(refused.value)))
    assert fewer < devices
    assert 4000 < size <= 4096
    start(fewer)
    start(devices, n_lanes=lanes, batch_size=size)


THREE = ("--trainer.devices", "3", "--trainer.strategy", "ddp")


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path / "topk")


@pytest.mark.thorough
def test_three_processes_train_as_one_does(tmp_path, tiny_data, sae):
    """With fewer contexts for the losses of the language model than there are processes."""
    found = []
    losses = {"class_path": "saerepgeo.callbacks.LMLoss", "init_args": {"n_contexts": 2}}
    for number, options in enumerate(((), THREE)):
        folder = tmp_path / str(number)
        folder.mkdir()
        config = write_config(folder, tiny_data | {"n_lanes": 6, "batch_size": 60}, sae, 6)
        done = run_fit(config, *options, f"--trainer.callbacks+={json.dumps(losses)}")
        assert done.returncode == 0, done.stderr
        weights = load_file(folder / "sae" / "training" / "sae_weights.safetensors")
        figures = json.loads((folder / "sae" / "figures.json").read_text())
        found.append((weights, figures))
    (expected, figures), (got, others) = found
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert others == pytest.approx(figures, rel=1e-3)
    assert "val/ce_recovered" in figures


@pytest.mark.thorough
def test_three_processes_share_four_concepts(tmp_path, tiny_data, sae):
    texts = ("{} comes.", "It rains on {}.", "We met on a {} in May.")
    items = ("Monday", "Tuesday", "Sunday")
    concept = {"items": items, "prompts": [text.format(item) for item in items for text in texts]}
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(dict.fromkeys("abcd", concept)))
    tables = []
    for number, options in enumerate(((), THREE)):
        folder = tmp_path / str(number)
        folder.mkdir()
        data = tiny_data | {"prompts": str(prompts), "concepts": None}
        config = write_config(folder, data, sae, 1)
        settings = yaml.safe_load(config.read_text())
        own = analysis("stratification", sae, folder / "out", n_draws=1, noise_levels=[0.0])
        settings["model"] = own.pop("model")
        settings["trainer"] |= own
        config.write_text(yaml.safe_dump(settings))
        done = run_fit(config, *options, command="test")
        assert done.returncode == 0, done.stderr
        rows = read_rows(folder / "out" / "results.csv")
        tables.append(sorted(rows, key=lambda row: sorted(row.items())))
    assert {row["concept"] for row in tables[0]} == set("abcd")
    assert tables[1] == tables[0]
