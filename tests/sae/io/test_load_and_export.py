"""Out to SAELens' formats and back: bit for bit, and readable by SAELens itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.load import load_sae
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import to_dense

METADATA = {
    "model_name": "gpt2-small",
    "hook_name": "blocks.8.hook_resid_pre",
    "context_size": 128,
    "prepend_bos": True,
    "exclude_special_tokens": True,
    "training": {"tokens": 1000, "regularizer": "aedp"},
}


def assert_same_state(found: SAEModel, expected: SAEModel) -> None:
    state, other = found.state_dict(), expected.state_dict()
    assert set(state) == set(other)
    for name, tensor in state.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("mode", ["none", "layer_norm", "expected_average_only_in"])
def test_load_save_load_is_bit_identical(
    make_lens: Callable[..., Any], residuals: Tensor, tmp_path: Path, architecture: str, mode: str
) -> None:
    scale = 0.7 if mode == "expected_average_only_in" else 1.0
    model = SAEModel(make_lens(architecture, normalize_activations=mode), scale)
    model.train()(residuals)  # so that batchtopk has a threshold

    first = load_sae(path=save_sae(model, tmp_path / "a", METADATA))
    second = load_sae(path=save_sae(first, tmp_path / "b"))

    assert_same_state(first, model)
    assert_same_state(second, first)
    assert first.architecture == model.architecture
    for name in ("cfg.json", "training/cfg.json"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


@pytest.mark.parametrize("mode", ["none", "layer_norm", "expected_average_only_in"])
@torch.no_grad()
def test_saelens_reads_both_forms(
    make_lens: Callable[..., Any], residuals: Tensor, tmp_path: Path, architecture: str, mode: str
) -> None:
    scale = 0.7 if mode == "expected_average_only_in" else 1.0
    model = SAEModel(make_lens(architecture, normalize_activations=mode), scale)
    model.train()(residuals)
    model.eval()
    latents, normalization = model.encode(residuals)
    folder = save_sae(model, tmp_path / "sae", METADATA)

    portable = sae_lens().SAE.load_from_disk(folder)
    trainable = sae_lens().TrainingSAE.load_from_disk(folder / "training")

    is_tied = architecture == "matching_pursuit"  # a constant can only go into its latents
    expected = to_dense(latents) / scale if is_tied else to_dense(latents)
    assert_close(portable.encode(residuals), expected, rtol=1e-5, atol=1e-5)
    recons = portable.decode(portable.encode(residuals))
    assert_close(recons, model.decode(latents, normalization), rtol=1e-4, atol=1e-4)
    assert portable.cfg.metadata.hook_name == METADATA["hook_name"]
    assert portable.cfg.metadata.training == METADATA["training"]
    assert portable.cfg.metadata.sae_lens_version == sae_lens().__version__
    assert trainable.cfg.architecture() == model.architecture
    assert trainable.cfg.normalize_activations == mode
    assert torch.equal(trainable.W_dec, model.sae.W_dec)


@torch.no_grad()
def test_inference_form_alone_loads_as_trainable(
    make_lens: Callable[..., Any], residuals: Tensor, tmp_path: Path, architecture: str
) -> None:
    """A folder that only SAELens' inference classes know becomes a training SAE with its record."""
    model = SAEModel(make_lens(architecture)).train()
    model(residuals)
    model.eval()
    folder = save_sae(model, tmp_path / "sae", METADATA, with_training_form=False)

    loaded = load_sae(path=folder).eval()

    found, expected = loaded.encode(residuals).latents, model.encode(residuals).latents
    assert_close(to_dense(found), to_dense(expected), rtol=1e-5, atol=1e-5)
    assert loaded.train()(residuals, step=100).recons.isfinite().all()
    if "batchtopk" in architecture:
        assert loaded.architecture == "jumprelu"
    elif architecture == "standard":
        assert loaded.sae.cfg.l1_coefficient == pytest.approx(0.7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_files(
    make_lens: Callable[..., Any],
    residuals: Tensor,
    tmp_path: Path,
    architecture: str,
    dtype: torch.dtype,
) -> None:
    model = SAEModel(make_lens(architecture)).train()
    model(residuals)
    whole = save_sae(model, tmp_path / "whole")
    half = save_sae(model, tmp_path / "half", dtype=dtype)

    loaded, lens = load_sae(path=half), sae_lens().SAE.load_from_disk(half)

    size, half_size = ((f / "sae_weights.safetensors").stat().st_size for f in (whole, half))
    assert half_size < 0.75 * size
    assert lens.W_dec.dtype == dtype
    assert loaded.sae.W_dec.dtype == torch.float32
    assert torch.equal(loaded.sae.W_dec, model.sae.W_dec.to(dtype).float())
    for name in ("threshold", "topk_threshold"):  # rounded, these would be another sparsity
        assert torch.equal(
            loaded.state_dict().get(f"sae.{name}", torch.zeros(1)),
            model.state_dict().get(f"sae.{name}", torch.zeros(1)),
        )
    again = load_sae(path=save_sae(loaded, tmp_path / "again", dtype=dtype))
    assert_same_state(again, loaded)


def test_unit_rows_are_recognized_after_half_precision(tmp_path: Path) -> None:
    model = new_sae("topk", d_in=64, d_sae=256, k=4)
    folder = save_sae(model, tmp_path / "sae", dtype=torch.bfloat16)
    assert float(load_sae(path=folder).decoder_norm_target) == 1.0


def test_absent_rescaling_means_none(tmp_path: Path, residuals: Tensor) -> None:
    """SAELens' training default would multiply the latents by the decoder norms."""
    model = new_sae("topk", d_in=12, d_sae=40, k=3)
    with torch.no_grad():
        model.sae.W_dec.mul_(torch.rand(40, 1) + 0.5)
    folder = save_sae(model, tmp_path / "sae", with_training_form=False)
    cfg = json.loads((folder / "cfg.json").read_text())
    del cfg["rescale_acts_by_decoder_norm"]
    del cfg["metadata"]["training_architecture_details"]
    (folder / "cfg.json").write_text(json.dumps(cfg))

    loaded = load_sae(path=folder)

    assert not loaded.sae.cfg.rescale_acts_by_decoder_norm
    found, expected = (to_dense(m.encode(residuals).latents) for m in (loaded, model))
    assert_close(found, expected)


def test_saelens_own_files_load(
    make_lens: Callable[..., Any], residuals: Tensor, tmp_path: Path, architecture: str
) -> None:
    lens = make_lens(architecture, normalize_activations="layer_norm")
    lens.save_model(tmp_path / "training_form")

    model = load_sae(path=tmp_path / "training_form")

    expected = lens.encode(residuals)
    latents, normalization = model.encode(residuals)
    assert_close(to_dense(latents), expected, rtol=1e-5, atol=1e-5)
    assert_close(model.decode(latents, normalization), lens.decode(expected), rtol=1e-4, atol=1e-4)


def test_training_settings_can_be_overridden(make_lens: Callable[..., Any], tmp_path: Path) -> None:
    folder = save_sae(SAEModel(make_lens("jumprelu")), tmp_path / "sae")
    model = load_sae(path=folder, training={"l0_coefficient": 0.01, "jumprelu_bandwidth": 0.2})
    assert model.sae.cfg.l0_coefficient == pytest.approx(0.01)
    assert model.sae.bandwidth == pytest.approx(0.2)


def test_negative_jumprelu_thresholds_mean_zero(
    make_lens: Callable[..., Any], residuals: Tensor, tmp_path: Path
) -> None:
    """Inference takes the relu first; the training class would let negative latents through."""
    lens = make_lens("jumprelu")
    with torch.no_grad():
        lens.threshold.sub_(0.5)
    lens.save_inference_model(tmp_path / "sae")

    expected = sae_lens().SAE.load_from_disk(tmp_path / "sae").encode(residuals)

    assert_close(load_sae(path=tmp_path / "sae").encode(residuals).latents, expected)


def test_export_replaces_whole_and_keeps_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    save_sae(new_sae("topk", d_in=8, d_sae=16, k=2), folder)
    (folder / "README.md").write_text("how it was made")

    save_sae(new_sae("topk", d_in=8, d_sae=32, k=2), folder, with_training_form=False)

    assert load_sae(path=folder).d_sae == 32
    assert (folder / "README.md").read_text() == "how it was made"
    assert not (folder / "training").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["sae"]


def test_failed_export_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_sae(new_sae("topk", d_in=8, d_sae=16, k=2), tmp_path / "sae")
    before = (folder / "sae_weights.safetensors").read_bytes()

    def disk_full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_sae(new_sae("topk", d_in=8, d_sae=32, k=2), folder)

    assert (folder / "sae_weights.safetensors").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["sae"]


@pytest.mark.parametrize("bad", [{"x": object()}, {"x": float("nan")}])
def test_metadata_must_be_json(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`metadata` must be JSON"):
        save_sae(new_sae("topk", d_in=8, d_sae=16, k=2), tmp_path / "sae", bad)
    assert not (tmp_path / "sae").exists()
