"""Models and SAEs from a hub, through huggingface_hub's own client: what the layouts mean."""

import pytest
import torch
from hub_server import HubServer
from inference_only_releases import INFERENCE_ONLY_RELEASES
from small_releases import D_IN, GEMMA, GPT2, PYTHIA, RELEASES, K

from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.sources import load_model
from saerepgeo.sae.io.load import load_sae, read_config
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.types import SparseLatents

FINAL_NORMS = ("ln_f", "final_layer_norm", "norm")


@pytest.mark.parametrize(("name", "layers"), [(GPT2, 12), (PYTHIA, 6), (GEMMA, 26)])
def test_the_last_layer_is_read_before_the_final_norm(
    online: HubServer, name: str, layers: int
) -> None:
    lm = FrozenLM.load(name, f"blocks.{layers - 1}.hook_resid_post", "float32")
    tokens, _ = lm.tokenizer.encode(["January comes after the rain."])
    with torch.no_grad():
        states = load_model(name)(tokens, output_hidden_states=True).hidden_states
    assert len(states) == layers + 1
    residuals = lm.residuals(tokens)
    norm = next(m for n, m in lm._plain.base_model.named_modules() if n in FINAL_NORMS)
    with torch.no_grad():
        torch.testing.assert_close(norm(residuals), states[-1])


@pytest.mark.parametrize("model", RELEASES)
def test_metadata_come_without_weights(hub: HubServer, model: str) -> None:
    config = read_config(*RELEASES[model])
    assert config["d_in"] == D_IN
    assert config["metadata"]["hook_name"] == RELEASES[model][1].split("__")[0]
    assert not hub.bodies(".safetensors")
    assert not hub.bodies(".pt")


def test_layouts_mean_what_their_origin_means(online: HubServer) -> None:
    openai = load_sae(*RELEASES["gpt2-small"])
    assert (openai.architecture, openai.normalization, openai.sae.cfg.k) == (
        "topk",
        "layer_norm",
        K,
    )
    assert load_sae(*RELEASES["pythia-70m"]).architecture == "standard"
    gemma = load_sae(*RELEASES["gemma-2-2b"])
    assert (gemma.architecture, gemma.sae.cfg.k) == ("topk", K)


@pytest.mark.parametrize("model", RELEASES)
@torch.no_grad()
def test_releases_equal_saelens_own_loading(online: HubServer, model: str) -> None:
    theirs = sae_lens().SAE.from_pretrained(*RELEASES[model])
    ours = load_sae(*RELEASES[model]).eval()
    points = 3 * torch.randn(20, D_IN, generator=torch.Generator().manual_seed(0)) + 0.5
    latents, normalization = ours.encode(points)
    expected = theirs.encode(points)
    dense = latents.to_dense() if isinstance(latents, SparseLatents) else latents
    tight = {"rtol": 0.0, "atol": 1e-6 * float(expected.max())}
    torch.testing.assert_close(dense, expected, **tight)
    tight = {"rtol": 0.0, "atol": 1e-6 * float(points.abs().max())}
    torch.testing.assert_close(
        ours.decode(latents, normalization), theirs.decode(expected), **tight
    )


@pytest.mark.filterwarnings("ignore:\\s*This SAE has non-empty model_from_pretrained_kwargs")
@pytest.mark.parametrize("name", INFERENCE_ONLY_RELEASES)
@torch.no_grad()
def test_releases_that_are_not_trained_equal_saelens_own_loading(
    online: HubServer, name: str
) -> None:
    theirs = sae_lens().SAE.from_pretrained(*INFERENCE_ONLY_RELEASES[name])
    ours = load_sae(*INFERENCE_ONLY_RELEASES[name])
    assert (ours.architecture, ours.is_trainable) == (name, False)
    prompts = 30 * torch.randn(4, 6, D_IN, generator=torch.Generator().manual_seed(0)) + 5
    latents, normalization = ours.encode_prompts(prompts, torch.ones(4, 6, dtype=torch.bool))
    expected = theirs.encode(prompts).flatten(0, 1)
    tight = {"rtol": 0.0, "atol": 1e-6 * float(expected.max())}
    torch.testing.assert_close(latents, expected, **tight)
    expected = theirs(prompts).flatten(0, 1)
    tight = {"rtol": 0.0, "atol": 1e-6 * float(expected.abs().max())}
    torch.testing.assert_close(ours.decode(latents, normalization), expected, **tight)


def test_what_is_cached_serves_without_the_hub(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_sae(*RELEASES["gpt2-small"])
    load_model(GPT2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    load_sae(*RELEASES["gpt2-small"])
    load_model(GPT2)
    assert not hub.requests
