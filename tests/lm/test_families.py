"""Residuals of other families of models, at every layer, against transformers' hidden states."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_releases import write_tokenizer
from torch import Tensor

from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.sources import load_model, model_facts

D_MODEL, LAYERS = 32, 3
SIZES: dict[str, Any] = {
    "hidden_size": D_MODEL,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", GROUPED),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": 4, "n_positions": 64},
    ),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", SIZES),
    "gemma-2": ("Gemma2Config", "Gemma2ForCausalLM", GROUPED | {"sliding_window": 4}),
    "qwen-2": ("Qwen2Config", "Qwen2ForCausalLM", GROUPED),
    "qwen-3": ("Qwen3Config", "Qwen3ForCausalLM", GROUPED),
}
FINAL_NORMS = ("ln_f", "final_layer_norm", "norm")
HAS_LAYER_NORM = {"gpt2", "gpt-neox"}
SITES = {"pre": "hook_resid_pre", "mid": "hook_resid_mid", "post": "hook_resid_post"}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    import transformers

    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            made[family] = folder = tmp_path_factory.mktemp(family)
            specials = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>"}
            ids = write_tokenizer(folder, "PreTrainedTokenizerFast", **specials)
            config_class, model_class, sizes = FAMILIES[family]
            torch.manual_seed(0)
            config = getattr(transformers, config_class)(**sizes, **ids)
            model = getattr(transformers, model_class)(config)
            model.get_input_embeddings().weight.data.mul_(20)  # residuals that layers can tell
            model.save_pretrained(folder)
        return made[family]

    return folder_of


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    drawn = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    drawn[:, 0] = 0
    return drawn


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_layer_equals_the_hidden_states(
    folder_of: Callable[[str], Path], family: str, tokens: Tensor
) -> None:
    folder = str(folder_of(family))
    model = load_model(folder)
    with torch.no_grad():
        states = model(tokens, output_hidden_states=True).hidden_states
    norms = dict(model.base_model.named_modules())
    final_norm = next(norms[name] for name in FINAL_NORMS if name in norms)
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS)]
    of_one_pass = FrozenLM.load(folder, hooks, "float32").residuals_by_hook(tokens, hooks)
    for layer, hook in enumerate(hooks):
        found = FrozenLM.load(folder, hook, "float32")
        assert found._layers == {hook: layer}  # the fast route agrees with TransformerLens
        residuals = found.residuals(tokens)
        assert of_one_pass[hook].equal(residuals)
        if layer == LAYERS - 1:  # the last of transformers' states has been normed
            with torch.no_grad():
                residuals = final_norm(residuals)
        torch.testing.assert_close(residuals, states[layer + 1], msg=f"{family} {layer}")
        assert not torch.allclose(states[layer], states[layer + 1], rtol=1e-3)


def test_places_within_a_layer_fit_together(
    folder_of: Callable[[str], Path], family: str, tokens: Tensor
) -> None:
    """What a layer reads is what the one before wrote; the middle is there if a layer has one."""
    folder = str(folder_of(family))
    pre = FrozenLM.load(folder, "blocks.1.hook_resid_pre", "float32")
    post = FrozenLM.load(folder, "blocks.0.hook_resid_post", "float32")
    torch.testing.assert_close(pre.residuals(tokens), post.residuals(tokens))
    assert pre.d_model == D_MODEL
    if family == "gpt-neox":  # attention and MLP side by side
        with pytest.raises(ValueError, match="must be a TransformerLens hook"):
            FrozenLM.load(folder, "blocks.1.hook_resid_mid", "float32")
        return
    middle = FrozenLM.load(folder, "blocks.1.hook_resid_mid", "float32").residuals(tokens)
    mlp = FrozenLM.load(folder, "blocks.1.hook_mlp_out", "float32").residuals(tokens)
    after = FrozenLM.load(folder, "blocks.1.hook_resid_post", "float32").residuals(tokens)
    torch.testing.assert_close(middle + mlp, after)


def test_facts_come_from_the_configuration(folder_of: Callable[[str], Path], family: str) -> None:
    facts = model_facts(str(folder_of(family)))
    assert facts == (D_MODEL, family in HAS_LAYER_NORM, 64)


def test_special_positions_and_sinks_reach_no_sae(
    folder_of: Callable[[str], Path], family: str
) -> None:
    lm = FrozenLM.load(str(folder_of(family)), "blocks.0.hook_resid_post", "float32")
    block = lm._block(0)

    def make_sink(_: Any, __: Any, output: Any) -> Any:
        residuals = output[0] if isinstance(output, tuple) else output
        residuals = residuals.clone()
        residuals[:, 2] *= 1e4
        return (residuals, *output[1:]) if isinstance(output, tuple) else residuals

    tokens, spans = lm.tokenizer.encode(["January is the first", "water comes after the rain."])
    block.register_forward_hook(make_sink)
    residuals = lm.residuals(tokens)
    is_real = lm.tokenizer.is_real(tokens)
    lm.find_sink_norm = lambda _: 100 * float(residuals.norm(dim=-1)[is_real].median())
    assert not lm.is_point(tokens, residuals)[:, 2].any()
    n_real = sum(len(span) - 1 for span in spans)
    points = lm.real_points(tokens)
    assert len(points) == n_real - 2
    assert float(points.norm(dim=1).max()) < 1e4


@pytest.mark.parametrize("name", sorted(HAS_LAYER_NORM))
def test_centring_is_what_transformer_lens_does_to_the_weights(
    folder_of: Callable[[str], Path], name: str, tokens: Tensor
) -> None:
    """center_writing_weights of a LayerNorm model gives the same residuals, less their mean."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    folder, hook = str(folder_of(name)), "blocks.1.hook_resid_post"
    bridge = TransformerBridge.boot_transformers(
        folder, hf_model=load_model(folder), tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    bridge.enable_compatibility_mode(
        center_writing_weights=True, fold_ln=False, center_unembed=False, fold_value_biases=False
    )
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens, names_filter=[hook])
    lm = FrozenLM.load(folder, hook, "float32", center_residuals=True)
    torch.testing.assert_close(lm.residuals(tokens), cache[hook], rtol=1e-4, atol=1e-3)
