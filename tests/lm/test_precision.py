"""What makes the model cheaper in bfloat16 changes no bit of what it gives."""

import gc
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.precision import cast_norms_once, hold_weights
from saerepgeo.lm.sources import load_model
from saerepgeo.lm.tokenizer import LMTokenizer

HOOK = "blocks.1.hook_resid_post"


def tokens() -> Tensor:
    out = torch.randint(3, 250, (5, 12), generator=torch.Generator().manual_seed(1))
    out[:, 0] = 0
    return out


def test_held_weights_and_norms_cast_once_give_the_bits_of_plain_autocast(tiny_lm):
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tiny_lm)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = plain(tokens(), output_hidden_states=True).hidden_states[2]
    lm = FrozenLM.load(str(tiny_lm), HOOK, "bfloat16")
    assert lm._plain.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
    given = []
    norm = lm._plain.model.layers[0].input_layernorm
    norm.register_forward_hook(lambda module, inputs, output: given.append(output.dtype))
    assert lm.residuals(tokens()).equal(expected)
    assert given == [torch.bfloat16]


def test_matrices_are_held_once_in_the_dtype_they_are_multiplied_in(tiny_lm):
    name = str(tiny_lm)
    model = load_model(name)
    loaded = [weakref.ref(m.weight) for m in model.modules() if type(m) is nn.Linear]
    lm = FrozenLM(model, LMTokenizer.load(name), name, HOOK, "bfloat16")
    del model
    gc.collect()
    assert len(loaded) > 20
    assert all(weight() is None for weight in loaded)
    assert lm.residuals(tokens()).isfinite().all()


class Block(nn.Module):
    """Its first norm feeds a product, its second the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.before_norm, self.after_norm = nn.LayerNorm(16), nn.LayerNorm(16)
        self.product = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.after_norm(self.product(self.before_norm(x)).float())


def test_a_norm_that_feeds_anything_but_a_product_is_left_as_it_is():
    torch.manual_seed(0)
    model, x = nn.Sequential(Block(), Block()), torch.randn(4, 16)
    hold_weights(model, torch.bfloat16)

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = model(x)
        return out

    with torch.no_grad():
        expected = run()
        assert cast_norms_once(model, torch.bfloat16, run) == {"before_norm": 2}
        assert run().equal(expected)


def test_many_prompts_go_through_in_passes_that_change_nothing(tiny_lm, monkeypatch: Any):
    lm = FrozenLM.load(str(tiny_lm), HOOK, "float32")
    expected, widths = lm.residuals(tokens()), []
    monkeypatch.setattr("saerepgeo.lm.frozen.TOKENS_PER_PASS", 30)
    run = lm._pass
    monkeypatch.setattr(lm, "_pass", lambda x, names: widths.append(len(x)) or run(x, names))
    torch.testing.assert_close(lm.residuals(tokens()), expected)
    assert widths == [2, 2, 1]
