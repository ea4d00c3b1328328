"""SAE and language model: what belongs together passes, each mismatch is named with its mend."""

from typing import Any

import pytest

from saerepgeo.sae.agreement import check_agreement
from saerepgeo.types import ModelFacts

GPT2 = ModelFacts(d_model=768, has_layer_norm=True)
LLAMA = ModelFacts(d_model=768, has_layer_norm=False)
DATA = {
    "lm": "openai-community/gpt2",
    "hook_name": "blocks.8.hook_resid_pre",
    "center_residuals": False,
    "context_size": 128,
}
METADATA = {
    "model_name": "gpt2-small",
    "hook_name": "blocks.8.hook_resid_pre",
    "context_size": 128,
    "prepend_bos": True,
    "model_from_pretrained_kwargs": {},
}


def sae(d_in: int = 768, **changes: Any) -> dict[str, Any]:
    return {"d_in": d_in, "d_sae": 4096, "metadata": METADATA | changes}


def test_what_belongs_together_passes_without_remark() -> None:
    assert check_agreement(sae(), DATA, GPT2) == []
    assert check_agreement({"d_in": 768}, DATA, GPT2) == []
    assert check_agreement({"d_in": 768, "metadata": {}}, DATA, GPT2) == []


@pytest.mark.parametrize(
    ("expected", "lm"),
    [
        ("gpt2-small", "gpt2"),
        ("gpt2-small", "openai-community/gpt2"),
        ("EleutherAI/pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("smollm2-135m", "smollm2-135m"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m"),
        ("gpt2-small", "./my-gpt2"),
        ("gpt2-small", "gpt2.Q4.gguf"),
        (None, "gpt2"),
    ],
)
def test_names_of_one_model(expected: str | None, lm: str) -> None:
    check_agreement(sae(model_name=expected), DATA | {"lm": lm}, GPT2)


@pytest.mark.parametrize(
    ("expected", "lm"),
    [
        ("gpt2-small", "openai-community/gpt2-medium"),
        ("gemma-2-2b", "google/gemma-2-2b-it"),
        ("HuggingFaceTB/SmolLM2-135M", "smollm2-135m"),
        ("pythia-70m", "EleutherAI/pythia-70m-deduped"),
    ],
)
def test_names_of_two_models(expected: str, lm: str) -> None:
    with pytest.raises(ValueError, match=f"belongs to model `{expected}`, `data.lm` is `{lm}`"):
        check_agreement(sae(model_name=expected), DATA | {"lm": lm}, GPT2)


def test_a_folder_is_local_whatever_its_name(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    check_agreement(sae(), DATA | {"lm": "mine"}, GPT2)
    with pytest.raises(ValueError, match="belongs to model"):
        check_agreement(sae(), DATA | {"lm": "yours"}, GPT2)


@pytest.mark.parametrize(
    ("expected", "hook"),
    [
        ("blocks.8.hook_resid_pre", "blocks.7.hook_resid_post"),
        ("blocks.7.hook_resid_post", "blocks.8.hook_resid_pre"),
        ("model.layers.7", "blocks.7.hook_resid_post"),
        ("transformer.h.7", "blocks.8.hook_resid_pre"),
        ("blocks.7.hook_mlp_out", "blocks.7.hook_mlp_out"),
    ],
)
def test_names_of_one_place(expected: str, hook: str) -> None:
    check_agreement(sae(hook_name=expected), DATA | {"hook_name": hook}, GPT2)


@pytest.mark.parametrize(
    ("expected", "hook"),
    [
        ("blocks.8.hook_resid_pre", "blocks.8.hook_resid_post"),
        ("blocks.8.hook_resid_pre", "blocks.8.hook_resid_mid"),
        ("blocks.8.hook_mlp_out", "blocks.8.hook_resid_post"),
        ("model.layers.7", "blocks.6.hook_resid_post"),
    ],
)
def test_names_of_two_places(expected: str, hook: str) -> None:
    with pytest.raises(ValueError, match=f"hook `{expected}`, `data.hook_name` is `{hook}`"):
        check_agreement(sae(hook_name=expected), DATA | {"hook_name": hook}, GPT2)


def test_heads_are_refused() -> None:
    name = "blocks.8.attn.hook_z"
    config = sae(hook_name=name, reshape_activations="hook_z")
    with pytest.raises(ValueError, match=r"reads heads of `blocks.8.attn.hook_z`"):
        check_agreement(config, DATA | {"hook_name": name}, GPT2)


def test_width() -> None:
    with pytest.raises(ValueError, match=r"width 512 \(d_in\), those of `.*gpt2` have 768"):
        check_agreement(sae(d_in=512), DATA, GPT2)


@pytest.mark.parametrize("trained", [True, False])
def test_centered_weights_are_honoured_where_they_matter(trained: bool) -> None:
    config = sae(model_from_pretrained_kwargs={"center_writing_weights": trained})
    right, wrong = (DATA | {"center_residuals": value} for value in (trained, not trained))
    check_agreement(config, right, GPT2)
    with pytest.raises(ValueError, match=rf"set `data\.center_residuals: {str(trained).lower()}`"):
        check_agreement(config, wrong, GPT2)
    check_agreement(config, DATA | {"center_residuals": False}, LLAMA)
    with pytest.raises(ValueError, match=r"set `data\.center_residuals: false`"):
        check_agreement(config, DATA | {"center_residuals": True}, LLAMA)


def test_unknown_processing_leaves_the_choice_to_the_user() -> None:
    config = sae(model_from_pretrained_kwargs=None)
    for value in (True, False):
        check_agreement(config, DATA | {"center_residuals": value}, GPT2)


def test_other_weights_of_the_model() -> None:
    config = sae(model_from_pretrained_kwargs={"checkpoint_value": 1000, "fold_ln": False})
    with pytest.raises(ValueError, match=r"other weights of the model .checkpoint_value 1000"):
        check_agreement(config, DATA, GPT2)


def test_context_size() -> None:
    check_agreement(sae(context_size=64), {k: DATA[k] for k in ("lm", "hook_name")}, GPT2)
    check_agreement(sae(context_size=256), DATA, GPT2)
    with pytest.raises(ValueError, match=r"contexts of 64 tokens.*is 128; set 64 or less"):
        check_agreement(sae(context_size=64), DATA, GPT2)


def test_everything_wrong_is_said_in_one_line() -> None:
    config = sae(d_in=12, model_name="gemma-2-2b", hook_name="blocks.1.hook_mlp_out")
    with pytest.raises(ValueError, match=r"model `gemma-2-2b`.*hook `blocks.1.*width 12") as error:
        check_agreement(config, DATA, GPT2)
    assert "\n" not in str(error.value)


def test_contexts_without_bos_are_remarked_on() -> None:
    assert "without BOS" in check_agreement(sae(prepend_bos=False), DATA, GPT2)[0]
