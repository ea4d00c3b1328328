"""SAEs of every architecture on a device: loaded, run, trained and exported as on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from saerepgeo.cases.analysis import random_model
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.load import load_sae
from saerepgeo.types import generator_for, to_dense
from tests.sae.test_inference_only import D_IN, SETTINGS, lens_sae

SAES: dict[str, dict[str, Any]] = {
    "topk": {"k": 4, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": 4},
    "batchtopk": {"k": 4, "rescale_acts_by_decoder_norm": True},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [16, 48]},
    "standard": {"normalize_activations": "expected_average_only_in", "input_scale": 0.5},
    "jumprelu": {"normalize_activations": "layer_norm"},
    "gated": {},
    "matching_pursuit": {"residual_threshold": 0.5},
}


@pytest.mark.parametrize("architecture", SAES)
def test_an_exported_sae_is_that_of_the_cpu(architecture, tmp_path, emulated):
    for name in ("cpu", "device"):
        made = new_sae(architecture, d_in=16, d_sae=48, **SAES[architecture])
        with torch.no_grad():
            made.sae.W_dec.mul_(torch.arange(1, 49)[:, None])
        save_sae(made.to("cpu" if name == "cpu" else emulated), tmp_path / name)
    for path in sorted((tmp_path / "cpu").rglob("*.*")):
        found = tmp_path / "device" / path.relative_to(tmp_path / "cpu")
        if path.suffix == ".json":
            assert found.read_bytes() == path.read_bytes(), path.name
        else:
            torch.testing.assert_close(load_file(found), load_file(path))


@pytest.mark.parametrize("architecture", SAES)
def test_a_step_of_an_sae_is_that_of_the_cpu(architecture, emulated):
    grads: dict[str, list[torch.Tensor]] = {}
    points = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    for device in ("cpu", emulated):
        made = new_sae(architecture, d_in=16, d_sae=48, **SAES[architecture]).to(device).train()
        out = made(points.to(device), dead_mask=torch.ones(48, dtype=torch.bool, device=device))
        loss = (out.recons - points.to(device)).square().sum() + sum(out.losses.values())
        loss.backward()
        grads[str(device)] = [p.grad.cpu() for p in made.parameters() if p.grad is not None]
    for found, expected in zip(grads[str(emulated)], grads["cpu"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", SAES)
def test_an_sae_is_loaded_where_a_device_is_the_default(architecture, tmp_path, emulated):
    """As Lightning has it in `configure_model`."""
    made = new_sae(architecture, d_in=16, d_sae=48, **SAES[architecture])
    save_sae(made, tmp_path / "sae")
    with emulated:
        loaded = load_sae(path=tmp_path / "sae")
        again = new_sae(architecture, d_in=16, d_sae=48, **SAES[architecture])
    for name, tensor in made.state_dict().items():
        assert loaded.state_dict()[name].cpu().equal(tensor), name
        assert again.state_dict()[name].cpu().equal(tensor), name


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_an_sae_that_is_only_analysed(name: str, tmp_path: Path, emulated: torch.device) -> None:
    lens_sae(name).save_model(tmp_path)
    prompts = 3 * torch.randn(6, 7, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5
    chosen = torch.arange(42).view(6, 7) % 7 > 2
    found: dict[str, list[torch.Tensor]] = {}
    for device in ("cpu", emulated):
        with emulated if device == emulated else torch.device("cpu"):
            model = load_sae(path=tmp_path)
        model, where = model.to(device), (prompts.to(device), chosen.to(device))
        random = random_model(model, *where, generator_for(0, "test"))
        encoded = model.encode_prompts(*where)
        parts = encoded.latents, model.decode(*encoded), random.encode_prompts(*where).latents
        found[str(device)] = [to_dense(part).cpu() for part in parts]
    for tensor, expected in zip(found[str(emulated)], found["cpu"], strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-4)
