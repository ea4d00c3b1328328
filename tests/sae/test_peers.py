"""Folders written by dictionary_learning and sparsify themselves, against their own encode/decode.

SAEs are trained for a few steps by their libraries' own trainers, so that thresholds, biases and
configs are what those libraries write.
"""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.sae.io.load import load_sae
from saerepgeo.types import to_dense

# sparsify takes Triton where it is installed, and then needs a GPU
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")

D_IN, D_SAE, K, STEPS = 12, 40, 5, 12
NAME = "dictionary_learning"


@pytest.fixture(scope="module")
def dictionary_learning() -> Iterator[ModuleType]:
    """The package without its `__init__`, which wants a tracer of language models (nnsight).

    Set-up installs it without its requirements: they would replace torch.
    """
    found = importlib.util.find_spec(NAME)
    if found is None:
        pytest.skip("pip install --no-deps dictionary-learning==0.1.0")
    package = importlib.util.module_from_spec(found)
    sys.modules[NAME] = package
    yield package
    for name in [n for n in sys.modules if n.split(".")[0] == NAME]:
        del sys.modules[name]


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(30, D_IN, generator=generator)
    strengths = [torch.rand(128, 30, generator=generator) for _ in range(STEPS)]
    return [(s * (s > 0.8)) @ mixing + 0.5 for s in strengths]


def assert_equal_to_1e6(found: Tensor, expected: Tensor) -> None:
    assert_close(found, expected, rtol=0.0, atol=1e-6 * float(expected.abs().max()))


GROUPS = {"group_fractions": [0.25, 0.75]}
WARM = {"sparsity_warmup_steps": 2}
START = {"threshold_start_step": 2, "threshold_beta": 0.5}
TRAINERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "AutoEncoder": ("standard", "StandardTrainer", WARM),
    "AutoEncoderNew": ("standard", "StandardTrainerAprilUpdate", WARM),
    "AutoEncoderTopK": ("top_k", "TopKTrainer", {"k": K} | START),
    "BatchTopKSAE": ("batch_top_k", "BatchTopKTrainer", {"k": K} | START),
    "MatryoshkaBatchTopKSAE": (
        "matryoshka_batch_top_k",
        "MatryoshkaBatchTopKTrainer",
        {"k": K} | GROUPS | START,
    ),
    "JumpReluAutoEncoder": ("jumprelu", "JumpReluTrainer", {"bandwidth": 0.1} | WARM),
    "GatedAutoEncoder": ("gdm", "GatedSAETrainer", WARM),
}


def train_and_write(kind: str, folder: Path) -> Any:
    """Train by the library's own trainer and write as its `trainSAE` does; return its SAE."""
    module, name, options = TRAINERS[kind]
    trainer_class = getattr(importlib.import_module(f"{NAME}.trainers.{module}"), name)
    about = {"layer": 3, "lm_name": "EleutherAI/pythia-70m-deduped", "seed": 0, "device": "cpu"}
    sizes = {"steps": STEPS, "activation_dim": D_IN, "dict_size": D_SAE, "warmup_steps": 2}
    if kind == "AutoEncoderNew":  # not the trainer's default; its config says AutoEncoder still
        options = options | {
            "dict_class": importlib.import_module(f"{NAME}.dictionary").AutoEncoderNew
        }
    trainer = trainer_class(**sizes, **about, **options)
    for step, batch in enumerate(batches()):
        trainer.update(step, batch)
    torch.save(trainer.ae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config}))
    return trainer.ae


@pytest.mark.parametrize("kind", TRAINERS)
def test_dictionary_learning_trained_and_written_by_itself(
    dictionary_learning: ModuleType, tmp_path: Path, kind: str
) -> None:
    theirs = train_and_write(kind, tmp_path)
    ours = load_sae(path=tmp_path).eval()
    assert type(theirs).__name__ == kind
    points = batches()[0]
    with torch.no_grad():
        expected = theirs.encode(points)
        found, normalization = ours.encode(points)
        assert 0 < int((expected != 0).sum()) < expected.numel()
        assert_equal_to_1e6(to_dense(found), expected)
        assert_equal_to_1e6(ours.decode(found, normalization), theirs.decode(expected))
        assert_equal_to_1e6(ours(points).recons, theirs(points))
    assert ours.metadata["hook_name"] == "blocks.3.hook_resid_post"
    assert ours.metadata["model_name"] == "pythia-70m-deduped"
    if hasattr(theirs, "threshold") and theirs.threshold.ndim == 0:
        assert float(theirs.threshold) > 0


def test_batches_are_selected_from_as_they_train(
    dictionary_learning: ModuleType, tmp_path: Path
) -> None:
    theirs = train_and_write("BatchTopKSAE", tmp_path)
    ours = load_sae(path=tmp_path).train()
    points = batches()[1]
    with torch.no_grad():
        expected = theirs.encode(points, use_threshold=False)
        assert_equal_to_1e6(to_dense(ours.encode(points).latents), expected)


@pytest.mark.parametrize("options", [{}, {"num_latents": D_SAE}, {"multi_topk": True}])
def test_sparsify_written_by_itself(tmp_path: Path, options: dict[str, Any]) -> None:
    sparsify = pytest.importorskip("sparsify", reason="pip install eai-sparsify==1.3.3")
    config = sparsify.SparseCoderConfig(expansion_factor=4, k=K, **options)
    torch.manual_seed(0)
    theirs = sparsify.SparseCoder(D_IN, config)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2)
    for batch in batches():
        theirs(batch).fvu.backward()
        theirs.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        theirs.set_decoder_norm_to_unit_norm()
    theirs.save_to_disk(tmp_path / "layers.4")
    own = sparsify.SparseCoder.load_from_disk(tmp_path / "layers.4")

    ours = load_sae(path=tmp_path / "layers.4").eval()

    points = batches()[0]
    with torch.no_grad():
        top = own.encode(points)
        expected = torch.zeros(len(points), ours.d_sae)
        expected.scatter_(1, top.top_indices, top.top_acts)
        found, normalization = ours.encode(points)
        assert_equal_to_1e6(to_dense(found), expected)
        recons = ours.decode(found, normalization)
        assert_equal_to_1e6(recons, own.decode(top.top_acts, top.top_indices))
        if not config.multi_topk:  # its forward then returns what 4·k latents give
            assert_equal_to_1e6(recons, own(points).sae_out)
    assert ours.metadata["hook_name"] == "blocks.4.hook_resid_post"
    assert ours.d_sae == (D_SAE if "num_latents" in options else 4 * D_IN)


@pytest.mark.parametrize("option", ["transcode", "skip_connection"])
def test_sparsify_transcoders_are_refused_in_one_line(tmp_path: Path, option: str) -> None:
    sparsify = pytest.importorskip("sparsify", reason="pip install eai-sparsify==1.3.3")
    config = sparsify.SparseCoderConfig(expansion_factor=4, k=K, **{option: True})
    sparsify.SparseCoder(D_IN, config).save_to_disk(tmp_path / "layers.4")
    with pytest.raises(ValueError, match=f"plain TopK SAE of sparsify, got unsupported: {option}"):
        load_sae(path=tmp_path / "layers.4")
