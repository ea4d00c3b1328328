"""Prompts files: read, checked, and every prompt labeled with the item that it names.

A file is JSON in one of two forms, which may stand side by side::

    {"months": ["January", "February follows January.", ...]}
    {"fruit": {"items": ["apple", "pear"], "prompts": ["apple", "She peeled the pear.", ...]}}

Without `items` they are the concept's bare prompts: those that neither contain another one nor end
in `.`, `?` or `!`. Prompts that name none of them are left out. The shipped file is read so too.

A prompt names the item mentioned first, in whole words and whatever its case; the longest item wins
where two begin at the same place (see `Mentions`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Any

from saerepgeo.data.prompts.mentions import Mentions, bare_prompts, match_key
from saerepgeo.data.prompts.names import (
    check_characters,
    check_names,
    check_printable,
    listed,
    start_of,
)
from saerepgeo.data.prompts.reading import expect, read_table

MIN_ITEMS = 2
"""Separation between the items of a concept is undefined for fewer."""
LONGEST_PROMPT = 100_000
"""Characters; how many tokens a prompt may have is the model's to say."""
RULE = "items are the prompts that contain no other one and do not end in . ? or !"
LISTED = '{"items": […], "prompts": […]}'


@dataclass(frozen=True)
class Concept:
    """The prompts of one concept and the items that they name."""

    name: str
    items: tuple[str, ...]
    prompts: tuple[str, ...]
    item_ids: tuple[int, ...]
    """One per prompt: index into `items` of the item that the prompt names."""
    mentions: tuple[tuple[int, int], ...]
    """One per prompt: start and end of the item in the prompt, in characters, end excluded."""
    left_out: tuple[str, ...] = ()
    """Prompts of the file that name no item."""
    has_list: bool = False
    """Whether the file lists the items; else they are its bare prompts."""


@dataclass(frozen=True)
class ConceptPrompts:
    """All concepts of a prompts file, in the order asked for (the file's order by default).

    >>> prompts = load_prompts(concepts=["months", "days"])
    >>> prompts.names, len(prompts["days"].items), prompts.n_items, prompts.first_item_ids
    (('months', 'days'), 7, 19, (0, 12))
    """

    concepts: tuple[Concept, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(concept.name for concept in self.concepts)

    @property
    def n_items(self) -> int:
        """Number of items of all concepts together."""
        return sum(len(concept.items) for concept in self.concepts)

    @property
    def first_item_ids(self) -> tuple[int, ...]:
        """Offset that makes each concept's item ids unique over all concepts."""
        return (0, *accumulate(len(concept.items) for concept in self.concepts[:-1]))

    @property
    def summary(self) -> str:
        """In one line what was read, by which rule, and what was left out.

        >>> load_prompts(concepts=["days"]).summary.partition(";")[0]
        'days 7 items and 49 prompts'
        """
        told = [f"{c.name} {len(c.items)} items and {len(c.prompts)} prompts" for c in self]
        left = [prompt for concept in self for prompt in concept.left_out]
        rule = "" if all(concept.has_list for concept in self) else f"; {RULE}"
        why = f"; {len(left)} left out, for naming none of them: {listed(left)}" if left else ""
        return listed(told) + rule + why

    def __getitem__(self, name: str) -> Concept:
        if name not in self.names:
            raise KeyError(f"no concept {name!r}; there are {', '.join(self.names)}")
        return self.concepts[self.names.index(name)]

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts)

    def __len__(self) -> int:
        return len(self.concepts)


def load_prompts(
    path: str | Path | None = None, concepts: Sequence[str] | None = None
) -> ConceptPrompts:
    """Read a prompts file (the shipped one of nine concepts by default), check and label it.

    `concepts` are the names of those wanted, in this order; None for all, in the file's order. Only
    the concepts wanted are checked.

    Raises ValueError with file, concept and index of the prompt: not a file, not UTF-8, not JSON,
    wrong types, an empty concept or prompt, fewer than two items or the same one twice, an unknown
    concept, names that would share files; where items are listed, one in no prompt, or a prompt
    without one.

    >>> months = load_prompts(concepts=["months"])["months"]
    >>> months.items[months.item_ids[0]], months.mentions[0]
    ('January', (0, 7))
    """
    place = "the shipped prompts file" if path is None else str(path)
    table = read_table(path, place)
    if isinstance(concepts, str):
        raise ValueError(f"`concepts` is a list of names, got the string {concepts!r}")
    wanted = tuple(table) if concepts is None else tuple(concepts)
    if not wanted:
        raise ValueError(f"{place}: no concept; expected {{concept: [prompt, …]}} or `concepts`")
    check_names(table, place)
    for name in wanted:
        if name not in table:
            near = get_close_matches(name, table, n=3, cutoff=0.5)
            names = listed([*near, *(other for other in table if other not in near)])
            raise ValueError(
                f"{place}: no concept {start_of(name)!r}; there are {names}; set "
                "`concepts` to those wanted, or to null for all"
            )
        if wanted.count(name) > 1:
            raise ValueError(f"`concepts` names {name!r} twice")
    return ConceptPrompts(tuple(_concept(name, table[name], place) for name in wanted))


def _concept(name: str, entry: Any, place: str) -> Concept:
    place = f"{place}, concept {name!r}"
    if has_list := isinstance(entry, dict):
        if set(entry) != {"items", "prompts"}:
            keys = listed(sorted(entry)) or "none"
            raise ValueError(f"{place}: expected the keys items and prompts, got {keys}")
        prompts = _strings(entry["prompts"], place, "prompt")
        items = _strings(entry["items"], place, "item")
    else:
        prompts = _strings(entry, place, "prompt")
        items = bare_prompts(prompts)
    items = tuple(item.strip() for item in items)
    for item in items:
        check_printable(item, f"{place}, item")
    if len(set(map(match_key, items))) < max(len(items), MIN_ITEMS):
        found = listed(items) or "none"
        rule = "" if has_list else f"; {RULE}; or list them as {LISTED}"
        raise ValueError(
            f"{place}: expected at least {MIN_ITEMS} different items, got {found}{rule}"
        )
    concept = _labeled(name, items, prompts, has_list)
    _check_labels(concept, prompts, place)
    return concept


def _labeled(
    name: str, items: tuple[str, ...], prompts: tuple[str, ...], has_list: bool
) -> Concept:
    mentions = Mentions(items)
    firsts = [(prompt, next(mentions.of(prompt), None)) for prompt in prompts]
    named = [(prompt, first) for prompt, first in firsts if first is not None]
    return Concept(
        name,
        items,
        prompts=tuple(prompt for prompt, _ in named),
        item_ids=tuple(first.item for _, first in named),
        mentions=tuple((first.start, first.end) for _, first in named),
        left_out=tuple(prompt for prompt, first in firsts if first is None),
        has_list=has_list,
    )


def _check_labels(concept: Concept, prompts: tuple[str, ...], place: str) -> None:
    """Refuse listed items and prompts that do not belong together."""
    items, used = concept.items, set(concept.item_ids)
    if concept.has_list and concept.left_out:
        prompt = concept.left_out[0]
        raise ValueError(
            f"{place}, prompt {prompts.index(prompt)} ({start_of(prompt)!r}): names no item of "
            f"{listed(items)}; list its item, or leave the prompt out"
        )
    if unused := [item for index, item in enumerate(items) if index not in used]:
        raise ValueError(
            f"{place}: no prompt for {listed(unused)} (a prompt counts for the item it names "
            "first); add prompts, or leave the item out"
        )


def _strings(value: Any, place: str, kind: str) -> tuple[str, ...]:
    expect(isinstance(value, list), f"{place}: expected a list of {kind}s", value)
    if not value:
        raise ValueError(f"{place}: the list of {kind}s is empty")
    for index, text in enumerate(value):
        where = f"{place}, {kind} {index}"
        expect(isinstance(text, str), f"{where}: expected a string", text)
        check_characters(text, where)
        if not any(character.isprintable() and character != " " for character in text):
            raise ValueError(f"{where}: empty, or of nothing but spaces and marks that do not show")
        if len(text) > LONGEST_PROMPT:
            most = f"expected at most {LONGEST_PROMPT:,} characters"
            raise ValueError(f"{where} ({start_of(text)!r}): {most}, got {len(text):,}")
    return tuple(value)
