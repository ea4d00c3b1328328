"""Contexts cover the text without gap; held-out documents are apart; files are cached whole."""

import json
import os
from typing import Any

import pytest
import torch

from saerepgeo.data.cache import activations_folder
from saerepgeo.data.contexts import DOCUMENT_BREAK, open_contexts
from saerepgeo.data.text import open_text
from saerepgeo.data.text.text_files import FileText
from saerepgeo.lm.tokenizer import LMTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Any) -> LMTokenizer:
    return LMTokenizer(tiny_tokenizer)


def files() -> list[str]:
    return sorted(path.name for path in activations_folder().glob("*"))


def documents_of(tokenizer: LMTokenizer, contexts: Any) -> list[str]:
    tokens = contexts.read(range(contexts.n_contexts))[:, 1:].flatten()
    return tokenizer.tokenizer.decode(tokens).split(DOCUMENT_BREAK)


def test_contexts_are_bos_and_the_running_text(tokenizer, text_file):
    contexts = open_contexts(open_text(text_file), tokenizer, 16)
    tokens = contexts.read(range(contexts.n_contexts))
    assert tokens.shape == (contexts.n_contexts, 16)
    assert tokens[:, 0].eq(tokenizer.bos_id).all()
    assert tokenizer.is_real(tokens[:, 1:]).all()
    stored = [json.loads(line)["text"] for line in text_file.read_text().splitlines()]
    text = "".join(document + DOCUMENT_BREAK for document in stored)
    assert text.startswith(tokenizer.tokenizer.decode(tokens[:, 1:].flatten()))
    assert contexts.n_tokens - tokens[:, 1:].numel() < 15


def test_training_and_heldout_documents_are_disjoint_and_complete(tokenizer, text_file):
    text = open_text(text_file)
    train, heldout = (
        documents_of(tokenizer, open_contexts(text, tokenizer, 16, split, 0.1))
        for split in ("train", "heldout")
    )
    assert len(heldout) == 30
    assert abs(len(train) - 270) <= 1
    assert not set(train[:-1]) & set(heldout[:-1])


def test_streamed_contexts_equal_stored_ones(tokenizer, text_file, tmp_path):
    folder = tmp_path / "streamed"
    folder.mkdir()
    (folder / "train.jsonl").write_text(text_file.read_text())
    stored = open_contexts(open_text(text_file), tokenizer, 16)
    streamed = open_contexts(open_text(f"hf:{folder}"), tokenizer, 16)
    assert streamed.n_contexts is None
    for numbers in ([0, 1, 2], [7, 5, 40], [3]):  # backwards as well
        assert streamed.read(numbers).equal(stored.read(numbers))
    behind_the_end = streamed.read([stored.n_contexts + 3])
    assert behind_the_end.shape == (1, 16)


def test_tokens_are_kept_and_a_changed_text_is_read_again(tokenizer, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("the old red day\n\n" * 30)
    first = open_contexts(open_text(path), tokenizer, 8)
    n_files = len(files())
    assert open_contexts(open_text(path), tokenizer, 8).read([0]).equal(first.read([0]))
    assert len(files()) == n_files
    path.write_text("the new blue sun\n\n" * 30)
    os.utime(path, (1, 1))
    second = open_contexts(open_text(path), tokenizer, 8)
    assert not second.read([0]).equal(first.read([0]))
    assert len(files()) == n_files + 1


def test_a_failure_while_tokenizing_leaves_nothing(tokenizer):
    class Broken(FileText):
        fingerprint = "broken"

        def documents(self):
            yield from ["the old red day"] * 1000
            raise ValueError("it breaks")

    before = files()
    with pytest.raises(ValueError, match="it breaks"):
        open_contexts(Broken(()), tokenizer, 8)
    assert files() == before


@pytest.mark.parametrize(
    ("size", "fraction", "message"),
    [(1, 0.1, "at least 2"), (16, 0.0, "heldout_text_fraction"), (99999, 0.1, "less than one")],
)
def test_bad_sizes_are_named(tokenizer, text_file, size, fraction, message):
    with pytest.raises(ValueError, match=message):
        open_contexts(open_text(text_file), tokenizer, size, "train", fraction)


def test_slow_tokenizers_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="fast tokenizer"):
        LMTokenizer(Slow())


def test_tokens_have_the_first_available_start(tiny_tokenizer):
    assert LMTokenizer(tiny_tokenizer).special_ids.equal(torch.tensor([0, 1, 2]))
