"""Token filters: which positions of a prompt are filler and take no part in the analysis.

The word lists are facts of the paper's protocol (arXiv 2505.22506).
"""

import re
from collections.abc import Callable
from functools import cache
from itertools import accumulate, pairwise
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

    `paper`: every listed string is looked up as a single token, bare, as it stands. Strings of
    several tokens have no effect, and " the" with a leading space passes. Works in any order.

    `sound`: every token that is part of a listed word fails, whatever its case and leading space;
    a word of several tokens fails as a whole, and a token that only begins a longer word ("in" of
    "inside") passes. Special tokens fail. The tokens must stand in the order of the text.

    Raises ValueError if `protocol` is neither.
    """
    strings = tuple(dict.fromkeys((*FILTER_COMMON, *FILTER_WORDS.get(concept, ()))))
    if protocol == "sound":
        return _WordFilter(strings, tokenizer)
    if protocol != "paper":
        raise ValueError(f'`protocol` is "paper" or "sound", got {protocol!r}')
    encoded = [tokenizer.encode(string, add_special_tokens=False) for string in strings]
    single = {ids[0] for ids in encoded if len(ids) == 1} - {tokenizer.unk_token_id}
    filtered = torch.tensor(sorted(single), dtype=torch.long)

    def passes(tokens: Int[Tensor, "*prompt position"]) -> Bool[Tensor, "*prompt position"]:
        return ~torch.isin(tokens, filtered.to(tokens.device))

    return passes


class _WordFilter:
    """Masks by the words that the tokens spell."""

    def __init__(self, strings: tuple[str, ...], tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.words = {string.casefold() for string in strings if re.fullmatch(r"\w+", string)}
        self.marks = {string for string in strings if not string.isalnum()}
        self.special_ids = set(tokenizer.all_special_ids)
        self.piece = cache(self._spelled)

    def __call__(self, tokens: Int[Tensor, "*prompt position"]) -> Bool[Tensor, "*prompt position"]:
        rows = tokens.reshape(-1, tokens.shape[-1]).tolist()
        passed = [self._passes(row) for row in rows]
        return torch.tensor(passed, dtype=torch.bool, device=tokens.device).reshape(tokens.shape)

    def _passes(self, row: list[int]) -> list[bool]:
        pieces = [self.piece(token) for token in row]
        spans = list(pairwise(accumulate(map(len, pieces), initial=0)))
        is_filler = [
            token in self.special_ids or piece.strip() in self.marks
            for token, piece in zip(row, pieces, strict=True)
        ]
        for match in re.finditer(r"\w+", "".join(pieces)):
            if match.group().casefold() in self.words:
                for index, (start, end) in enumerate(spans):
                    is_filler[index] |= start < match.end() and end > match.start()
        return [not filler for filler in is_filler]

    def _spelled(self, token: int) -> str:
        """Return the text of one token with its leading space, which `decode` may strip."""
        if token in self.special_ids:
            return " "  # a word never reaches over a special token
        raw: str = self.tokenizer.convert_ids_to_tokens(token)
        if "▁" in raw:
            return raw.replace("▁", " ")
        return self.tokenizer.convert_tokens_to_string([raw])
