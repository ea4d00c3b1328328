"""Families in real processes: killed and resumed, and two processes at once."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_process import killing, run_fit, write_family

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

STEPS = 7
NAMES = ("loaded", "topk", "batch")
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sae") / "topk"
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), path)


@pytest.fixture(scope="module")
def data(tiny_lm: Path, text_file: Path) -> dict[str, Any]:
    return {
        "lm": str(tiny_lm),
        "lm_dtype": "float32",
        "text": str(text_file),
        "concepts": ["months", "days"],
        "batch_size": 64,
        "concept_fraction": 0.25,
        "context_size": 16,
        "window_steps": 3,
        "lm_batch_size": 4,
        "n_lanes": 4,
        "validation_contexts": 8,
        "cache_stream": True,
    }


def weights(folder: Path) -> dict[str, Weights]:
    return {
        name: load_file(folder / "sae" / name / "training" / "sae_weights.safetensors")
        for name in NAMES
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data: Any, sae: Path) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = run_fit(write_family(folder, data, sae, STEPS))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wrote the SAE") == 3
    return folder


def test_killed_and_resumed_equals_uninterrupted(tmp_path, data, sae, uninterrupted):
    config = write_family(tmp_path, data, sae, STEPS)
    first = run_fit(config, killing(5, "SIGKILL"))
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert not (tmp_path / "sae").exists()
    (kept,) = (tmp_path / "checkpoints").glob("last.ckpt")
    assert torch.load(kept, weights_only=True)["global_step"] == 4
    last = run_fit(config, "--ckpt_path", "last")
    assert last.returncode == 0, last.stderr
    for (name, got), expected in zip(
        weights(tmp_path).items(), weights(uninterrupted).values(), strict=True
    ):
        assert got.keys() == expected.keys()
        assert all(got[key].equal(expected[key]) for key in expected), name
        figures = [f / "sae" / name / "figures.json" for f in (tmp_path, uninterrupted)]
        assert figures[0].read_text() == figures[1].read_text()


def test_two_processes_with_a_kept_stream_train_the_same_saes(tmp_path, data, sae, uninterrupted):
    config = write_family(tmp_path, data, sae, STEPS)
    done = run_fit(config, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert done.returncode == 0, done.stderr
    assert "through" not in done.stderr, "the stream of one process was not found in the cache"
    assert "batch" in weights(tmp_path)  # each process selects over its own part of the batch
    for name in ("loaded", "topk"):
        got, expected = weights(tmp_path)[name], weights(uninterrupted)[name]
        keys = sorted(expected)
        ours, theirs = (torch.cat([w[key].flatten() for key in keys]) for w in (got, expected))
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5, name


def test_a_checkpoint_of_other_saes_is_refused(tmp_path, data, sae, uninterrupted):
    config = write_family(tmp_path, data, sae, STEPS)
    checkpoint = str(uninterrupted / "checkpoints" / "last.ckpt")
    text = config.read_text().replace("name: topk", "name: other").replace("k: 3", "k: 5")
    config.write_text(text)
    done = run_fit(config, "--ckpt_path", checkpoint)
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert (
        "`model.saes` was ['loaded', 'topk', 'batch'] and is ['loaded', 'other', 'batch']" in line
    )
    assert "`model.saes.batch` was 'batchtopk (new)' and is 'batchtopk (new)' with other" in line
