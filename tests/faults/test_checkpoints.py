"""Checkpoints that are whole, or passed over for an older one; settings that may change."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from faults.checkpoints import RunsCode, cut, hiding, into, trained
from faults.faults import Place
from safetensors.torch import load_file

from saerepgeo.callbacks.checkpoints import DamagedCheckpoint, WholeCheckpointIO, read_checkpoint
from saerepgeo.cli import GeometryCLI, main

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
Said = pytest.LogCaptureFixture


def prepared(place: Place, **settings: Any) -> tuple[Path, Path]:
    """Write a configuration of 3 steps beside the checkpoints of 2; return it and the folder."""
    folder = Path(shutil.copytree(trained(place), place.folder / "checkpoints"))
    export = place.config["trainer"]["callbacks"][-1]
    export["init_args"]["dirpath"] = str(place.folder / "sae")
    into(place.config, folder)
    place.config["trainer"]["callbacks"].append(export)
    place.trainer(max_steps=3, **settings)
    return place.write("run.yaml", yaml.safe_dump(place.config)), folder


def fit(config: Path, *options: str) -> None:
    assert main(["fit", "--config", str(config), *options]) == 0


def weights(place: Place) -> dict[str, torch.Tensor]:
    return load_file(place.folder / "sae" / "training" / "sae_weights.safetensors")


FREE: list[Callable[[Place], Any]] = [
    lambda place: place.data(validation_contexts=4, cache_stream=False, test_with_padding=False),
    lambda place: place.data(lm=str(shutil.move(place.copy_of(place.lm), place.folder / "lm"))),
    lambda place: place.data(text=str(place.copy_of(place.text))),
    lambda place: place.model(sae={"path": str(place.copy_of(place.sae))}),
    lambda place: place.trainer(log_every_n_steps=1, num_sanity_val_steps=0),
]


@pytest.mark.parametrize("change", FREE, ids=["sizes", "lm folder", "text", "sae", "trainer"])
def test_settings_that_change_no_weights_are_free(place, change):
    prepared(place, limit_val_batches=0)
    change(place)
    fit(place.write("run.yaml", yaml.safe_dump(place.config)), "--ckpt_path", "last")
    assert weights(place)


def test_insisting_goes_on_under_changed_settings(place):
    config, _ = prepared(place, limit_val_batches=0)
    options = "--model.init_args.lr=0.1", "--ckpt_path=last"
    with pytest.raises(ValueError, match="belongs to another run"):
        fit(config, *options)
    fit(config, *options, "--resume_changed", "true")
    assert weights(place)


def test_a_checkpoint_without_facts_is_compared_by_its_settings(place):
    config, folder = prepared(place, limit_val_batches=0)
    for path in folder.iterdir():
        found = torch.load(path, weights_only=True)
        del found["callbacks"]["Resumption"], found["transport_plans"]
        torch.save(found, path)
    with pytest.raises(ValueError, match=r"`data\.seed` was 0 and is 1"):
        fit(config, "--ckpt_path", "last", "--data.init_args.seed", "1")
    fit(config, "--ckpt_path", "last")
    assert weights(place)


def test_the_newest_that_reads_is_taken_and_that_is_said(place, caplog: Said):
    config, folder = prepared(place, limit_val_batches=0)
    cut(0.5)(folder / "last.ckpt")
    shutil.copy(folder / "epoch=0-step=2.ckpt", folder / "hidden.ckpt")
    hiding(RunsCode())(folder / "hidden.ckpt")  # the newest
    fit(config, "--ckpt_path", "last")
    said = caplog.text
    assert "hidden.ckpt is not read: it holds posix.system" in said
    assert "last.ckpt is no whole checkpoint" in said
    assert f"going on from {folder.resolve()}/epoch=0-step=2.ckpt" in said
    assert "Restored all states" in said


@pytest.mark.parametrize("spoil", [Path.unlink, cut(0.2)], ids=["none", "none whole"])
def test_without_a_checkpoint_last_starts_anew_and_says_so(place, spoil, caplog: Said):
    config, folder = prepared(place, limit_val_batches=0)
    for path in folder.iterdir():
        spoil(path)
    fit(config, "--ckpt_path", "last")
    assert "starting anew" in caplog.text
    assert weights(place)


@pytest.mark.parametrize("n_validation", [0, None], ids=["without validation", "with validation"])
def test_a_run_killed_before_its_export_is_finished(place, n_validation):
    config, _ = prepared(place, limit_val_batches=n_validation)
    fit(config, "--ckpt_path", "last")
    folder = place.folder / "sae"
    expected = weights(place), json.loads((folder / "figures.json").read_text())
    for _ in range(2):  # once more changes nothing
        shutil.rmtree(folder)
        fit(config, "--ckpt_path", "last")
        figures = json.loads((folder / "figures.json").read_text())
        assert all(weights(place)[name].equal(tensor) for name, tensor in expected[0].items())
        assert figures == expected[1]
    assert bool(figures) == (n_validation is None)


@pytest.mark.parametrize("interval", [2, 3])
def test_the_figures_are_of_the_weights_exported(place, interval):
    config, folder = prepared(place, val_check_interval=interval)
    fit(config, "--ckpt_path", str(folder / "last.ckpt"))
    figures = json.loads((place.folder / "sae" / "figures.json").read_text())
    place.model(sae={"path": str(place.folder / "sae")})
    module, data = place.config["model"], place.config["data"]
    trainer = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    alone = {"trainer": trainer, "model": module, "data": data}
    path = place.write("validate.yaml", yaml.safe_dump(alone))
    options = {"auto_configure_optimizers": False, "save_config_callback": None}
    cli = GeometryCLI(args=["validate", "--config", str(path)], **options)
    found = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    assert found["val/mse"] == pytest.approx(figures["val/mse"], rel=1e-5)


def test_transport_plans_are_resumed(place):
    place.model(regularizer="gromov_wasserstein", decay_fraction=0.0)  # 2 of 3 steps are 2 steps
    config, folder = prepared(place, limit_val_batches=0)
    stored = torch.load(folder / "last.ckpt", weights_only=True)["transport_plans"]
    assert stored
    fit(config, "--ckpt_path", "last")
    resumed = weights(place)
    shutil.rmtree(folder)
    fit(config)
    assert all(weights(place)[name].equal(tensor) for name, tensor in resumed.items())


def test_a_crash_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path, written = tmp_path / "last.ckpt", {name: 1 for name in ("state_dict", "global_step")}
    io = WholeCheckpointIO()
    io.save_checkpoint(written | {"pytorch-lightning_version": "2"}, path)

    def half(value: Any, file: Any) -> None:
        file.write(b"PK" * 1000)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        io.save_checkpoint({}, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]
    assert read_checkpoint(path)["global_step"] == 1


@pytest.mark.parametrize("limit", [0, 1000, 20_000, 70_000])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, limit):
    path, io = tmp_path / "last.ckpt", WholeCheckpointIO()
    value = {"state_dict": {"x": torch.zeros(20_000)}, "global_step": 1}
    io.save_checkpoint(value, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # no file may be longer
    try:
        with pytest.raises(OSError, match=r"could not be written.*80,000 bytes are needed"):
            io.save_checkpoint(value, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(path, weights_only=True)["global_step"] == 1


def test_every_flipped_byte_is_found_or_changes_nothing(place, tmp_path):
    content = (trained(place) / "last.ckpt").read_bytes()
    expected = torch.load(trained(place) / "last.ckpt", weights_only=True)
    path, found = tmp_path / "flipped.ckpt", []
    for position in range(7, len(content), 997):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            read_checkpoint(path)
        except DamagedCheckpoint as error:
            found.append(str(error))
        else:
            assert same(torch.load(path, weights_only=True), expected), position
    assert len(found) > 80
    assert all(map(str.isprintable, found))


def same(x: Any, y: Any) -> bool:
    if isinstance(x, torch.Tensor):
        return x.equal(y)
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(same(x[name], y[name]) for name in x)
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(same, x, y))
    return bool(x == y)
