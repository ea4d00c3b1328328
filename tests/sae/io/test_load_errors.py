"""Whatever is wrong with a folder gets one line: what was expected, what came, what to do."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from saerepgeo.sae.io import load as loading
from saerepgeo.sae.io.build import assemble, new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.load import load_sae
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.sae_source import SAESource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = new_sae("topk", d_in=8, d_sae=16, k=2)
    return save_sae(model, tmp_path / "sae", with_training_form=False)


def rewrite(folder: Path, **changes: Any) -> None:
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | changes))


def refused(message: str, **arguments: Any) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_sae(**arguments)
    assert "\n" not in str(caught.value)


def test_one_source_must_be_named(folder: Path) -> None:
    refused("either `path` or `release`")
    refused("either `path` or `release`", path=folder, release="gpt2-small-res-jb")


def test_missing_folder(tmp_path: Path) -> None:
    refused("`path` must be a folder that holds an SAE", path=tmp_path / "nothing")


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(f"{name} must exist beside", path=folder)


def test_config_is_not_json(folder: Path) -> None:
    (folder / "cfg.json").write_text("{d_in: 8")
    refused("cfg.json must be JSON", path=folder)
    (folder / "cfg.json").write_text("[1]")
    refused("cfg.json must hold an object, got list", path=folder)
    (folder / "cfg.json").write_text("{}")
    refused("cfg.json must hold an integer `d_in`, got None", path=folder)


@pytest.mark.parametrize("name", ["crosscoder", "mystery"])
def test_unknown_architecture_before_any_weight_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rewrite(folder, architecture=name)

    def must_not_run(file: Path) -> None:
        raise AssertionError(f"{file} was read")

    monkeypatch.setattr(loading, "read_safetensors", must_not_run)
    refused(f"`architecture` must be one of standard, topk.*got '{name}'", path=folder)


def test_wrong_shapes(folder: Path) -> None:
    rewrite(folder, d_in=9)
    refused(r"must have shape \(.*9.*\).*got", path=folder)


def test_tensors_of_another_architecture(folder: Path) -> None:
    rewrite(folder, architecture="gated")
    refused("missing: b_gate, b_mag, r_mag, unknown: b_enc", path=folder)


def test_file_cut_short(folder: Path) -> None:
    file = folder / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused("sae_weights.safetensors must be whole", path=folder)


def test_constant_scale_unknown(folder: Path) -> None:
    rewrite(folder, normalize_activations="expected_average_only_in")
    refused("`input_scale` must be given", path=folder)
    assert load_sae(path=folder, input_scale=0.5).input_scale == 0.5


def test_whitening_not_folded(folder: Path) -> None:
    rewrite(folder, normalize_activations="covariance_whitening")
    refused("covariance_whitening and its matrices are not folded", path=folder)


def test_unknown_training_settings(folder: Path) -> None:
    refused(
        "`training` must hold settings of TopKTrainingSAEConfig.*got l1",
        path=folder,
        training={"l1": 3},
    )


@pytest.mark.parametrize("k", [None, 0, 17])
def test_new_topk_needs_a_possible_k(k: int | None) -> None:
    with pytest.raises(ValueError, match=rf"`k` must lie within 1\.\.d_sae = 16, got {k}"):
        new_sae("topk", d_in=8, d_sae=16, k=k)


def test_k_means_nothing_to_other_architectures() -> None:
    with pytest.raises(ValueError, match="`k` must be left out for architecture 'standard'"):
        new_sae("standard", d_in=8, d_sae=16, k=3)


def test_unknown_release_names_the_nearest() -> None:
    refused(
        "`release` must be registered.*nearest.*gpt2-small-res-jb",
        release="gpt2-small-re-jb",
        sae_id="x",
    )
    refused(
        "`sae_id` must be an SAE of release.*blocks.8.hook_resid_pre",
        release="gpt2-small-res-jb",
        sae_id="blocks.8.hook_resid_pr",
    )
    refused("`sae_id` must name an SAE", release="gpt2-small-res-jb")


def test_hub_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"the hub is out of reach.*or give a local folder"):
        load_sae(release="gpt2-small-res-jb", sae_id="blocks.8.hook_resid_pre")


def test_old_scaling_factor_is_kept_in_the_decoder(make_lens: Callable[..., Any]) -> None:
    """SAELens before 6 multiplied latents on their way into the decoder."""
    weights = dict(make_lens("standard").state_dict())
    factor = torch.rand(40) + 0.5
    found = loading._without_finetuning_scale(weights | {"scaling_factor": factor})
    torch.testing.assert_close(found["W_dec"], weights["W_dec"] * factor[:, None])
    assert "scaling_factor" not in found


def test_model_kwargs_in_the_metadata_do_not_warn(make_lens: Callable[..., Any]) -> None:
    """SAELens warns at every construction; the LM loader honours them instead."""
    cfg = {
        "architecture": "standard",
        "d_in": 12,
        "d_sae": 40,
        "metadata": {"model_from_pretrained_kwargs": {"center_writing_weights": True}},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = assemble(cfg, dict(make_lens("standard").state_dict()))
    assert isinstance(model, SAEModel)
    assert model.metadata["model_from_pretrained_kwargs"] == {"center_writing_weights": True}


def test_weights_are_read_before_a_run_and_refused(folder: Path) -> None:
    source = SAESource(path=str(folder))
    source.check_weights()
    (folder / "sae_weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="sae_weights"):
        source.check_weights()


def test_settings_of_a_new_sae_are_refused_before_a_run() -> None:
    SAESource(architecture="topk", d_in=8, d_sae=16, options={"k": 16}).check_weights()
    with pytest.raises(ValueError, match="`k`"):
        SAESource(architecture="topk", d_in=8, d_sae=16, options={"k": 17}).check_weights()


def test_a_new_sae_is_drawn_from_seed_zero_by_default() -> None:
    source = SAESource(architecture="topk", d_in=8, d_sae=16, options={"k": 2})
    assert torch.equal(source.build().sae.W_enc, source.build(seed=0).sae.W_enc)
    assert not torch.equal(source.build().sae.W_enc, source.build(seed=1).sae.W_enc)
