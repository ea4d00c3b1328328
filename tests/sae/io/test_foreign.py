"""dictionary_learning and sparsify folders against the formulas of their own encode and decode."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from saerepgeo.sae.io.load import load_sae
from saerepgeo.types import to_dense

D_IN, D_SAE, K = 12, 40, 5


def draw(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name.replace("__", "."): 0.4 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def keep_top(values: Tensor) -> Tensor:
    top, indices = values.topk(K, dim=-1)
    return torch.zeros_like(values).scatter(-1, indices, top)


LINEAR = {"encoder__weight": (D_SAE, D_IN), "decoder__weight": (D_IN, D_SAE)}
MATRIX = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}


def auto_encoder(x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    w = draw(**LINEAR, encoder__bias=(D_SAE,), bias=(D_IN,))
    f = torch.relu(functional.linear(x - w["bias"], w["encoder.weight"], w["encoder.bias"]))
    return w, f, functional.linear(f, w["decoder.weight"]) + w["bias"]


def auto_encoder_new(x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    w = draw(**LINEAR, encoder__bias=(D_SAE,), decoder__bias=(D_IN,))
    f = torch.relu(functional.linear(x, w["encoder.weight"], w["encoder.bias"]))
    return w, f, functional.linear(f, w["decoder.weight"], w["decoder.bias"])


def auto_encoder_top_k(x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    w = draw(**LINEAR, encoder__bias=(D_SAE,), b_dec=(D_IN,))
    f = torch.relu(functional.linear(x - w["b_dec"], w["encoder.weight"], w["encoder.bias"]))
    f = keep_top(f)
    recons = functional.linear(f, w["decoder.weight"]) + w["b_dec"]
    buffers = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(-1.0)}
    return w | buffers, f, recons


def batch_top_k(x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    w = draw(**LINEAR, encoder__bias=(D_SAE,), b_dec=(D_IN,))
    f = torch.relu(functional.linear(x - w["b_dec"], w["encoder.weight"], w["encoder.bias"]))
    f = f * (f > 0.8)
    recons = functional.linear(f, w["decoder.weight"]) + w["b_dec"]
    buffers = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.8)}
    return w | buffers, f, recons


def matryoshka(x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    w = draw(**MATRIX)
    f = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    f = f * (f > 0.8)
    buffers = {
        "k": torch.tensor(K, dtype=torch.int),
        "threshold": torch.tensor(0.8),
        "group_sizes": torch.tensor([10, 30]),
    }
    return w | buffers, f, f @ w["W_dec"] + w["b_dec"]


def jump_relu(x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    w = draw(**MATRIX, threshold=(D_SAE,))
    w["threshold"] = w["threshold"].abs()
    pre_jump = x @ w["W_enc"] + w["b_enc"]
    f = torch.relu(pre_jump * (pre_jump > w["threshold"]))
    return w, f, f @ w["W_dec"] + w["b_dec"]


def gated(x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    w = draw(**LINEAR, decoder_bias=(D_IN,), r_mag=(D_SAE,), gate_bias=(D_SAE,), mag_bias=(D_SAE,))
    x_enc = functional.linear(x - w["decoder_bias"], w["encoder.weight"])
    f_mag = torch.relu(w["r_mag"].exp() * x_enc + w["mag_bias"])
    f = (x_enc + w["gate_bias"] > 0).float() * f_mag
    return w, f, functional.linear(f, w["decoder.weight"]) + w["decoder_bias"]


ORIGINS = {
    "AutoEncoder": auto_encoder,
    "AutoEncoderNew": auto_encoder_new,
    "AutoEncoderTopK": auto_encoder_top_k,
    "BatchTopKSAE": batch_top_k,
    "MatryoshkaBatchTopKSAE": matryoshka,
    "JumpReluAutoEncoder": jump_relu,
    "GatedAutoEncoder": gated,
}


def write_dictionary_learning(folder: Path, kind: str, weights: dict[str, Tensor]) -> None:
    folder.mkdir()
    torch.save(weights, folder / "ae.pt")
    trainer = {
        "dict_class": kind,
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "k": K,
        "layer": 3,
        "lm_name": "EleutherAI/pythia-70m-deduped",
        "submodule_name": "resid_post_layer_3",
    }
    config = {"trainer": trainer, "buffer": {"ctx_len": 128}}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ORIGINS)
@torch.no_grad()
def test_dictionary_learning_equals_its_own_formula(
    tmp_path: Path, residuals: Tensor, kind: str
) -> None:
    weights, latents, recons = ORIGINS[kind](residuals)
    write_dictionary_learning(tmp_path / "sae", kind, weights)

    model = load_sae(path=tmp_path / "sae").eval()

    found, normalization = model.encode(residuals)
    assert_close(to_dense(found), latents, rtol=0.0, atol=1e-6 * float(latents.max()))
    expected = {"rtol": 0.0, "atol": 1e-6 * float(recons.abs().max())}
    assert_close(model.decode(found, normalization), recons, **expected)
    assert model.metadata["hook_name"] == "blocks.3.hook_resid_post"
    assert model.metadata["model_name"] == "pythia-70m-deduped"
    assert model.metadata["context_size"] == 128


@pytest.mark.parametrize("kind", ORIGINS)
def test_foreign_saes_train(tmp_path: Path, residuals: Tensor, kind: str) -> None:
    write_dictionary_learning(tmp_path / "sae", kind, ORIGINS[kind](residuals)[0])
    model = load_sae(path=tmp_path / "sae").train()

    output = model(residuals, torch.arange(D_SAE) < 4)
    loss = (output.recons - residuals).square().sum(dim=1).mean() + sum(output.losses.values())
    loss.backward()

    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def sparsify_weights() -> dict[str, Tensor]:
    return draw(
        encoder__weight=(D_SAE, D_IN), encoder__bias=(D_SAE,), W_dec=(D_SAE, D_IN), b_dec=(D_IN,)
    )


def write_sparsify(folder: Path, **changes: Any) -> dict[str, Tensor]:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    weights = sparsify_weights()
    save_file(weights, folder / "sae.safetensors")
    cfg = {"expansion_factor": 32, "num_latents": D_SAE, "k": K, "d_in": D_IN} | changes
    (folder / "cfg.json").write_text(json.dumps(cfg))
    run = {"model": "EleutherAI/pythia-160m", "ctx_len": 2048}
    (folder.parent / "config.json").write_text(json.dumps(run))
    return weights


@torch.no_grad()
def test_sparsify_equals_its_own_formula(tmp_path: Path, residuals: Tensor) -> None:
    w = write_sparsify(tmp_path / "run" / "layers.4")
    pre = functional.linear(residuals - w["b_dec"], w["encoder.weight"], w["encoder.bias"])
    latents = keep_top(torch.relu(pre))

    model = load_sae(path=tmp_path / "run" / "layers.4").eval()

    found = model.encode(residuals).latents
    recons = latents @ w["W_dec"] + w["b_dec"]
    assert_close(to_dense(found), latents, rtol=0.0, atol=1e-6 * float(latents.max()))
    assert_close(model.decode(found), recons, rtol=0.0, atol=1e-6 * float(recons.abs().max()))
    assert model.metadata["hook_name"] == "blocks.4.hook_resid_post"
    assert model.metadata["model_name"] == "pythia-160m"


@pytest.mark.parametrize(
    "change", [{"transcode": True}, {"skip_connection": True}, {"activation": "groupmax"}]
)
def test_sparsify_variants_without_counterpart(tmp_path: Path, change: dict[str, Any]) -> None:
    write_sparsify(tmp_path / "run" / "layers.4", **change)
    with pytest.raises(ValueError, match=f"plain TopK SAE of sparsify.*{next(iter(change))}"):
        load_sae(path=tmp_path / "run" / "layers.4")


def test_pickles_with_code_are_not_loaded(tmp_path: Path, residuals: Tensor) -> None:
    write_dictionary_learning(tmp_path / "sae", "AutoEncoder", auto_encoder(residuals)[0])
    torch.save({"encoder.weight": Path("x")}, tmp_path / "sae" / "ae.pt")
    with pytest.raises(ValueError, match=r"ae\.pt must hold plain tensors"):
        load_sae(path=tmp_path / "sae")


def test_unknown_dictionary_class(tmp_path: Path, residuals: Tensor) -> None:
    write_dictionary_learning(tmp_path / "sae", "CrossCoder", auto_encoder(residuals)[0])
    with pytest.raises(ValueError, match=r"`dict_class` among AutoEncoder.*got 'CrossCoder'"):
        load_sae(path=tmp_path / "sae")


def test_config_without_its_sizes(tmp_path: Path, residuals: Tensor) -> None:
    write_dictionary_learning(tmp_path / "sae", "AutoEncoder", auto_encoder(residuals)[0])
    (tmp_path / "sae" / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoder"}}')
    with pytest.raises(ValueError, match="must hold an integer `activation_dim`"):
        load_sae(path=tmp_path / "sae")
