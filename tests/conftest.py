"""A small random language model on disk, so that every test runs offline in seconds."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Lightning 2.6 calls what jsonargparse 4.53 deprecates; nothing of ours
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

TEXT = """
the a of and to in is was for on with month day after before comes follows spring winter
snow rain sun early late year week begins ends old new red blue water fire air earth
"""
WORDS = TEXT.split()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep what a test run caches apart from the user's, except the converted models."""
    from saerepgeo.lm.sums import cache_root

    user, own = cache_root(), tmp_path_factory.mktemp("cache")
    (user / "models").mkdir(parents=True, exist_ok=True)
    (own / "models").symlink_to(user / "models")
    before = os.environ.get("SAEREPGEO_CACHE")
    os.environ["SAEREPGEO_CACHE"] = str(own)
    yield own
    if before is None:
        del os.environ["SAEREPGEO_CACHE"]
    else:
        os.environ["SAEREPGEO_CACHE"] = before


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 300 short documents over a small vocabulary."""
    generator = random.Random(0)
    documents = [" ".join(generator.choices(WORDS, k=40)) + "." for _ in range(300)]
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("".join(f'{{"text": "{document}"}}\n' for document in documents))
    return path


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with BOS, EOS and padding."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trainer = ByteLevelBPETokenizer()
    specials = ["<bos>", "<eos>", "<pad>"]
    trainer.train_from_iterator(
        [" ".join(WORDS)], vocab_size=400, special_tokens=specials, show_progress=False
    )
    names = dict(zip(("bos_token", "eos_token", "pad_token"), specials, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=trainer._tokenizer, **names)


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A Hugging Face folder with a random three-layer Llama of width 32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tiny_tokenizer),
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    folder = tmp_path_factory.mktemp("tiny-lm")
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # residuals of a size like a trained model's
        model.model.embed_tokens.weight.mul_(50)
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_data(tiny_lm: Path, text_file: Path) -> dict[str, Any]:
    """Arguments of an `ActivationDataModule` over the small model."""
    return {
        "lm": str(tiny_lm),
        "hook_name": "blocks.1.hook_resid_post",
        "lm_dtype": "float32",
        "text": str(text_file),
        "concepts": ["months", "days"],
        "batch_size": 64,
        "concept_fraction": 0.25,
        "context_size": 16,
        "window_steps": 3,
        "lm_batch_size": 4,
        "n_lanes": 4,
        "validation_contexts": 8,
    }


@pytest.fixture
def few_prompts(tmp_path: Path, tiny_data: dict[str, Any]) -> dict[str, Any]:
    """Arguments of an `ActivationDataModule` with one concept of few prompts."""
    days = ["Monday", "Tuesday", "Wednesday", "Friday", "Sunday"]
    texts = ("{} comes.", "It rains on {}.", "We met on a {} in May.", "{}, then rest.")
    prompts = [text.format(day) for day in days for text in texts]
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"days": {"items": days, "prompts": prompts}}))
    return tiny_data | {"prompts": str(path), "concepts": ["days"]}


def pytest_sessionstart() -> None:
    """Take autograd's first step beside the emulated device: it counts devices once."""
    from emulated_device import active

    with active():
        torch.ones((), requires_grad=True).mul(2).backward()


@pytest.fixture
def emulated() -> Iterator[torch.device]:
    """A device other than the CPU, without hardware."""
    from emulated_device import active

    with active() as device:
        yield device


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of cases are made and not drawn, which takes longest."""
    blank = np.zeros((1, 1, 4), np.uint8)
    monkeypatch.setattr("saerepgeo.report.tensorboard.save_figure", lambda *_: blank)
