"""Real processes: killed and resumed, interrupted, and two at once; the weights must agree."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_process import SPLIT, killing, run_fit, write_config

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.sae_lens import sae_lens

STEPS = 9


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sae") / "topk"
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "sae" / "training" / "sae_weights.safetensors")


@pytest.fixture(scope="module")
def data(tiny_lm: Path, text_file: Path) -> dict[str, Any]:
    return {
        "lm": str(tiny_lm),
        "hook_name": "blocks.1.hook_resid_post",
        "lm_dtype": "float32",
        "text": str(text_file),
        "concepts": ["months", "days"],
        "batch_size": 64,
        "concept_fraction": 0.25,
        "context_size": 16,
        "window_steps": 4,
        "lm_batch_size": 4,
        "n_lanes": 4,
        "validation_contexts": 8,
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data: Any, sae: Path) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = run_fit(write_config(folder, data, sae, STEPS))
    assert done.returncode == 0, done.stderr
    assert "streamed" in done.stderr
    assert "wrote the SAE" in done.stderr
    return folder


@pytest.mark.parametrize("steps", [(8,), pytest.param((4, 8), marks=pytest.mark.thorough)], ids=str)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, data, sae, uninterrupted, steps):
    """Also right after a checkpoint, and just before the end."""
    config = write_config(tmp_path, data, sae, STEPS)
    first = run_fit(config, killing(3, "SIGKILL"))
    assert first.returncode == -signal.SIGKILL
    assert not (tmp_path / "sae").exists()
    for step in steps:
        again = run_fit(config, "--ckpt_path", "last", killing(step, "SIGKILL"))
        assert again.returncode == -signal.SIGKILL, again.stderr
    last = run_fit(config, "--ckpt_path", "last")
    assert last.returncode == 0, last.stderr
    got, expected = weights(tmp_path), weights(uninterrupted)
    assert got.keys() == expected.keys()
    assert all(got[name].equal(expected[name]) for name in expected)


def test_sigterm_leaves_a_checkpoint_of_its_step_and_exits_so(tmp_path, data, sae, uninterrupted):
    config = write_config(tmp_path, data, sae, STEPS)
    stopped = run_fit(config, killing(4, "SIGTERM"))
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert "continue with --ckpt_path" in stopped.stderr
    assert not (tmp_path / "sae").exists()
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 5
    assert run_fit(config, "--ckpt_path", "last").returncode == 0
    got, expected = weights(tmp_path), weights(uninterrupted)
    assert all(got[name].equal(expected[name]) for name in expected)


DDP = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


def noting(folder: Path) -> str:
    options = {"path": str(folder / "tokenized.txt")}
    callback = {"class_path": "training_process.NoteTokenizing", "init_args": options}
    return f"--trainer.callbacks+={json.dumps(callback)}"


def tokenized(folder: Path) -> list[str]:
    """Return rank and split of every time that text was tokenized."""
    return sorted((folder / "tokenized.txt").read_text().splitlines())


def test_two_processes_train_the_same_sae(tmp_path, data, sae, uninterrupted, monkeypatch):
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    config = write_config(tmp_path, data, sae, STEPS)
    done = run_fit(config, *DDP, noting(tmp_path))
    assert done.returncode == 0, done.stderr
    assert tokenized(tmp_path) == ["0 heldout", "0 train"]
    check_close(tmp_path, uninterrupted, sae)
    silent, expected = silent_points(tmp_path), silent_points(uninterrupted)
    assert int(expected.max()) > data["batch_size"]  # some latent was silent for some steps
    assert silent.equal(expected)


@pytest.mark.thorough
def test_two_processes_without_a_cache_tokenize_each_for_itself(tmp_path, data, sae, monkeypatch):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "activations").write_text("no folder")
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    done = run_fit(write_config(tmp_path, data, sae, 1), *DDP, noting(tmp_path))
    assert done.returncode == 0, done.stderr
    assert tokenized(tmp_path) == ["0 heldout", "0 train", "1 heldout", "1 train"]
    assert done.stderr.count("activations are not kept in") == 1


def silent_points(folder: Path) -> torch.Tensor:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]["silent_points"]


def check_close(folder: Path, expected_folder: Path, sae: Path) -> None:
    """Check that all weights together agree within 1e-5, and that training has moved them."""
    got, expected = weights(folder), weights(expected_folder)
    start = load_file(sae / "training" / "sae_weights.safetensors")
    names = sorted(expected)
    flat_got, flat_expected, flat_start = (
        torch.cat([w[name].flatten() for name in names]) for w in (got, expected, start)
    )
    assert float((flat_got - flat_expected).norm() / flat_expected.norm()) < 1e-5
    assert float((flat_expected - flat_start).norm() / flat_start.norm()) > 0.01  # it did train


def test_split_between_two_processes_killed_and_resumed_equals_one(
    tmp_path, data, sae, uninterrupted
):
    config = write_config(tmp_path, data, sae, STEPS)
    first = run_fit(config, *SPLIT, killing(5, "SIGKILL"))
    assert first.returncode == -signal.SIGKILL, first.stderr
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert checkpoint["state_dict"]["sae.sae.W_dec"].shape == (96, 32)  # whole, on rank 0
    assert not (tmp_path / "sae").exists()
    last = run_fit(config, *SPLIT, "--ckpt_path", "last")
    assert last.returncode == 0, last.stderr
    assert "Restored all states" in last.stderr
    check_close(tmp_path, uninterrupted, sae)
    check_figures(tmp_path, uninterrupted)
    points = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        sae_lens().SAE.load_from_disk(folder / "sae")(points).detach()
        for folder in (tmp_path, uninterrupted)
    )
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


@pytest.mark.thorough
def test_checkpoint_of_one_process_is_resumed_split(tmp_path, data, sae, uninterrupted):
    config = write_config(tmp_path, data, sae, STEPS)
    checkpoint = uninterrupted / "checkpoints" / "epoch=0-step=4.ckpt"
    done = run_fit(config, *SPLIT, "--ckpt_path", str(checkpoint))
    assert done.returncode == 0, done.stderr
    check_close(tmp_path, uninterrupted, sae)


def check_figures(folder: Path, expected_folder: Path) -> None:
    """Check that the last validation's figures agree."""
    got, expected = (
        json.loads((f / "sae" / "figures.json").read_text()) for f in (folder, expected_folder)
    )
    assert got.keys() == expected.keys()
    for name in ("val/mse", "val/fvu", "val/l0", "val/dead_fraction", "val/aedp/months"):
        assert got[name] == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.init_args.sae.path", "/nowhere"], "must be a folder that holds an SAE"),
        pytest.param(
            ["--data.init_args.concepts", "[months, nothing]"],
            "no concept 'nothing'",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_bad_input_is_one_line_and_a_status(tmp_path, data, sae, arguments, message):
    done = run_fit(write_config(tmp_path, data, sae, STEPS), *arguments)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("checkpoints/*"))
