"""Token filters: which positions of a prompt are filler and take no part in the analysis.

The word lists are facts of the paper's protocol (arXiv 2505.22506): common words for every concept,
and further ones for each.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saerepgeo.types import Bool, Int

_NUMBERS = "one two three four five six seven eight nine ten eleven twelve"
_ONE_TO_TWELVE = tuple(_NUMBERS.split())
_CAPITAL_ONE_TO_TEN = tuple(word.capitalize() for word in _ONE_TO_TWELVE[:10])

_COMMON = (
    "<|endoftext|> <pad> <bos> The in at id . sign element"
    " Element the Sign comes after follows on an of ends"
)
FILTER_COMMON = tuple(_COMMON.split())
"""Strings filtered for every concept."""

FILTER_WORDS: dict[str, tuple[str, ...]] = {
    "months": ("spring", "summer", "fall", "winter", *_ONE_TO_TWELVE),
    "days": _ONE_TO_TWELVE[:7],
    "elements": ("period", *_ONE_TO_TWELVE, "life", "air"),
    "color": ("follows", *_ONE_TO_TWELVE[:7]),
    "planets": ("small", "blue", *_CAPITAL_ONE_TO_TEN),
    "number": ("after", "succeeds", "lucky"),
    "alphabet": ("succeeds", "follows", "letter", "Letter"),
    "phonetic_symbol": ("symbol", "Symbol", *_CAPITAL_ONE_TO_TEN),
    "constellations": ("sign", "earth", "air", "symbolizes", *_CAPITAL_ONE_TO_TEN),
}
"""Strings filtered besides, by concept; a concept that is not here has the common ones alone."""

MaskFunction = Callable[[Int[Tensor, "*prompt position"]], Bool[Tensor, "*prompt position"]]


def token_filter(concept: str, tokenizer: Any, protocol: str = "sound") -> MaskFunction:
    """Return the function from token ids to a mask that is True where a token passes the filter.

    `paper`: every string of the lists is looked up as a single token, bare, as it stands; strings
    that are not a single token have no effect, and neither have the lists on forms with a leading
    space (" the"), for these are other tokens. Works on ids alone, in any order.

    `sound`: the tokens are put together into text, and every token that is part of a listed word
    fails, whatever its case and leading space; a word of several tokens fails as a whole, and a
    token that only begins a longer word ("in" of "inside") passes. Special tokens fail. The
    position axis must hold the tokens in the order of the text.

    Args:
        concept: Name of the concept; one that has no list is filtered by the common strings.
        tokenizer: A `transformers` tokenizer.
        protocol: `"paper"` or `"sound"`.

    Raises:
        ValueError: If `protocol` is neither.
    """
    strings = tuple(dict.fromkeys((*FILTER_COMMON, *FILTER_WORDS.get(concept, ()))))
    if protocol == "paper":
        filtered = torch.tensor(_single_token_ids(strings, tokenizer), dtype=torch.long)

        def passes_paper(
            tokens: Int[Tensor, "*prompt position"],
        ) -> Bool[Tensor, "*prompt position"]:
            return ~torch.isin(tokens, filtered.to(tokens.device))

        return passes_paper
    if protocol == "sound":
        return _WordFilter(strings, tokenizer)
    raise ValueError(f'`protocol` is "paper" or "sound", got {protocol!r}')


def _single_token_ids(strings: tuple[str, ...], tokenizer: Any) -> list[int]:
    ids = set()
    for string in strings:
        encoded = tokenizer.encode(string, add_special_tokens=False)
        if len(encoded) == 1 and encoded[0] != tokenizer.unk_token_id:
            ids.add(encoded[0])
    return sorted(ids)


class _WordFilter:
    """Masks by the words that the tokens spell; holds what single tokens decode to."""

    def __init__(self, strings: tuple[str, ...], tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.words = {string.casefold() for string in strings if re.fullmatch(r"\w+", string)}
        self.marks = set(strings) - {string for string in strings if string.isalnum()}
        self.special_ids = set(tokenizer.all_special_ids)
        self.pieces: dict[int, str] = {}

    def __call__(self, tokens: Int[Tensor, "*prompt position"]) -> Bool[Tensor, "*prompt position"]:
        rows = tokens.reshape(-1, tokens.shape[-1]).tolist()
        passed = [self._passes(row) for row in rows]
        return torch.tensor(passed, dtype=torch.bool, device=tokens.device).reshape(tokens.shape)

    def _passes(self, row: list[int]) -> list[bool]:
        pieces = [self._piece(token) for token in row]
        ends, passed, length = [], [], 0
        for token, piece in zip(row, pieces, strict=True):
            length += len(piece)
            ends.append(length)
            passed.append(token not in self.special_ids and piece.strip() not in self.marks)
        text, first = "".join(pieces), 0
        for match in re.finditer(r"\w+", text):
            while ends[first] <= match.start():
                first += 1
            if match.group().casefold() in self.words:
                for index in range(first, len(row)):
                    if ends[index] - len(pieces[index]) >= match.end():
                        break
                    passed[index] = False
        return passed

    def _piece(self, token: int) -> str:
        """Return the text of one token with its leading space, which `decode` may strip."""
        if token in self.special_ids:
            return " "  # a word never reaches over a special token
        if token not in self.pieces:
            raw = self.tokenizer.convert_ids_to_tokens(token)
            self.pieces[token] = (
                raw.replace("▁", " ")
                if "▁" in raw
                else self.tokenizer.convert_tokens_to_string([raw])
            )
        return self.pieces[token]
