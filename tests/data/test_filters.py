"""Token filters against tokenizers that are built here: byte-level BPE, and one that writes ▁."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers import decoders as tokenizer_decoders
from transformers import PreTrainedTokenizerFast

from saerepgeo.data.prompts import FILTER_WORDS, Concept, load_prompts, token_filter

TEXT = [
    "The letter after the symbol follows a sign in the air inside an element.",
    "after comes The the sign Sign of follows symbol one two three",
    "the",
    "follows",
]
SPECIAL = ["<|endoftext|>", "<pad>"]


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<pad>"
    )


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizer_decoders.ByteLevel()
    prompts = [prompt for concept in load_prompts() for prompt in concept.prompts]
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXT * 50, *prompts], trainer)
    return wrapped(tokenizer)


@pytest.fixture(scope="module")
def metaspace() -> PreTrainedTokenizerFast:
    """Like SentencePiece: a leading space is part of the token, and `decode` strips it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = tokenizer_decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TEXT * 50, trainer)
    return wrapped(tokenizer)


def passing(text: str, concept: str, tokenizer: PreTrainedTokenizerFast, protocol: str) -> str:
    tokens = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    mask = token_filter(concept, tokenizer, protocol)(tokens)
    assert mask.shape == tokens.shape
    assert mask.dtype == torch.bool
    return str(tokenizer.decode(tokens[mask]))


def test_paper_filters_bare_forms_only(byte_level: PreTrainedTokenizerFast) -> None:
    assert passing("The sign of The air.", "months", byte_level, "paper") == " sign of The air"


def test_paper_filter_is_the_lookup_of_single_tokens(byte_level: PreTrainedTokenizerFast) -> None:
    vocabulary = torch.arange(len(byte_level))
    failing = vocabulary[~token_filter("alphabet", byte_level, "paper")(vocabulary)].tolist()
    words = {str(byte_level.decode([token])) for token in failing}
    assert {"<|endoftext|>", "<pad>", "The", "the", ".", "after", "follows"} <= words
    assert not any(word.startswith(" ") for word in words)
    listed = byte_level.encode("Element", add_special_tokens=False)
    assert len(listed) > 1, "the test wants a listed word of several tokens"
    assert not set(listed) & set(failing)


def test_sound_filters_words_in_any_form(byte_level: PreTrainedTokenizerFast) -> None:
    text = "The sign of THE inside air. In Venus"
    assert passing(text, "months", byte_level, "sound").split() == ["inside", "air", "Venus"]
    assert passing("air,the", "months", byte_level, "sound") == "air,"


def test_sound_filters_words_of_several_tokens_as_a_whole(
    byte_level: PreTrainedTokenizerFast,
) -> None:
    text = "Winter wintergreen symbolizes winters, Element"
    assert len(byte_level.encode(" Winter", add_special_tokens=False)) > 1
    assert passing(text, "months", byte_level, "sound") == " wintergreen symbolizes winters,"
    assert passing(text, "constellations", byte_level, "sound") == "Winter wintergreen winters,"


def test_sound_sees_spaces_that_decoding_strips(metaspace: PreTrainedTokenizerFast) -> None:
    text = "in the sign inside"
    assert passing(text, "days", metaspace, "sound").strip() == "inside"


def test_sound_fails_special_tokens_and_keeps_words_apart_there(
    byte_level: PreTrainedTokenizerFast,
) -> None:
    ids = byte_level.encode("in<|endoftext|>side<pad>", add_special_tokens=False)
    mask = token_filter("days", byte_level)(torch.tensor(ids))
    kept = [token for token, passes in zip(ids, mask.tolist(), strict=True) if passes]
    assert byte_level.decode(kept) == "side"


def test_lists_are_by_concept(byte_level: PreTrainedTokenizerFast) -> None:
    assert passing("lucky five", "number", byte_level, "sound") == " five"
    assert passing("lucky five", "days", byte_level, "sound") == "lucky"
    assert passing("lucky five", "fruit", byte_level, "sound") == "lucky five"
    assert FILTER_WORDS["months"][-1] == "twelve"
    assert FILTER_WORDS["days"][-1] == "seven"
    assert set(FILTER_WORDS) == set(load_prompts().names)


def test_rows_are_texts_of_their_own(byte_level: PreTrainedTokenizerFast) -> None:
    first = byte_level.encode("in", add_special_tokens=False)
    second = byte_level.encode("side", add_special_tokens=False)
    assert len(first) == 1
    rows = torch.tensor([[first[0]], [second[0]]])
    assert token_filter("days", byte_level)(rows)[0].tolist() == [False]
    assert token_filter("days", byte_level)(rows[:, 0]).tolist()[0] is True


@pytest.mark.parametrize("concept", load_prompts().concepts, ids=load_prompts().names)
def test_items_of_shipped_prompts_pass(
    concept: Concept, byte_level: PreTrainedTokenizerFast
) -> None:
    keep = token_filter(concept.name, byte_level, "sound")
    for prompt, (start, end) in zip(concept.prompts, concept.mentions, strict=True):
        encoded = byte_level(prompt, return_offsets_mapping=True, add_special_tokens=False)
        mask = keep(torch.tensor(encoded["input_ids"]))
        for passes, (left, right) in zip(mask.tolist(), encoded["offset_mapping"], strict=True):
            if left < end and right > start:
                assert passes, prompt


def test_unknown_protocol(byte_level: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match='`protocol` is "paper" or "sound", got \'Paper\''):
        token_filter("months", byte_level, "Paper")
