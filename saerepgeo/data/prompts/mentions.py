"""Where prompts mention items: in whole words, whatever their case, the longest first."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")
"""What sits on the letter before it, as the tilde of a nasal vowel: part of its word."""
_START = re.compile(rf"[\w{_MARKS}]+|(?<![\w{_MARKS}])[^\w{_MARKS}]")
"""A place where a mention may begin, and what it begins with: a word, or another character."""


class Mention(NamedTuple):
    """Item `item` stands in a text from `start` to `end`, in characters, end excluded."""

    item: int
    start: int
    end: int


class Mentions:
    """Finds items in texts; what this takes grows with the text, not with the number of items.

    An item of a single character has to match in case as well, or every article would mention
    the letter A.

    >>> next(Mentions(["York", "New York"]).of("Yorkshire is not new york."))
    Mention(item=1, start=17, end=25)
    """

    def __init__(self, items: Sequence[str]) -> None:
        self._items: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
        longest_first = sorted(enumerate(items), key=lambda entry: -len(entry[1]))
        for index, item in longest_first:
            folded = fold(item)
            begin = _START.match(folded)
            assert begin is not None, "an item is not empty"
            self._items[begin[0]].append((item, folded, index))

    def of(self, text: str) -> Iterator[Mention]:
        """Yield every mention in the order of the text, at one place the longest first."""
        folded = fold(text)
        for begin in _START.finditer(folded):
            for item, folded_item, index in self._items.get(begin[0], ()):
                start, end = begin.start(), begin.start() + len(item)
                is_there = (
                    folded.startswith(folded_item, start)
                    if len(item) > 1
                    else (text.startswith(item, start))
                )
                if is_there and not _continues(text, end):
                    yield Mention(index, start, end)


def fold(text: str) -> str:
    """Return `text` without its case, each character in its place."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(one if len(one := c.casefold()) == 1 else c for c in text)


def match_key(item: str) -> str:
    """Return what is the same for two items exactly where they are mentioned at the same places."""
    return item if len(item) == 1 else fold(item)


def bare_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """Return the prompts that neither mention another of them nor end in `.`, `?` or `!`."""
    candidates: dict[str, str] = {}
    for prompt in map(str.strip, prompts):
        if prompt[-1] not in ".?!":
            candidates.setdefault(match_key(prompt), prompt)
    found = tuple(candidates.values())
    mentions = Mentions(found)
    return tuple(
        candidate
        for own, candidate in enumerate(found)
        if all(mention.item == own for mention in mentions.of(candidate))
    )


def _continues(text: str, end: int) -> bool:
    """Return whether the word that ends before `end` goes on there."""
    following = text[end : end + 1]
    return following.isalnum() or (following != "" and following in f"_{_MARKS}")
