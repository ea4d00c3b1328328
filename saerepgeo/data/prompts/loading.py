"""Prompts files: read, checked, and every prompt labeled with the item that it names.

A file is JSON in one of two forms, which may stand side by side::

    {"months": ["January", "February follows January.", ...]}
    {"fruit": {"items": ["apple", "pear"], "prompts": ["apple", "She peeled the pear.", ...]}}

Without `items`, those of a shipped concept of that name count, else the concept's bare prompts:
those that neither contain another prompt nor end in `.`, `?` or `!`.

A prompt names the item mentioned first, in whole words and whatever its case; the longest item wins
where two begin at the same place (see `Mentions`).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
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

MIN_ITEMS = 2
"""Separation between the items of a concept is undefined for fewer."""
LONGEST_PROMPT = 100_000
"""Characters; how many tokens a prompt may have is the model's to say."""


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
    wrong types, an empty concept or prompt, an item in no prompt, a prompt without an item, fewer
    than two items or the same one twice, an unknown concept, names that would share files.

    >>> months = load_prompts(concepts=["months"])["months"]
    >>> months.items[months.item_ids[0]], months.mentions[0]
    ('January', (0, 7))
    """
    place = "the shipped prompts file" if path is None else str(path)
    try:
        raw = _shipped("concept_prompts.json") if path is None else _read(Path(path))
    except OSError as error:
        raise ValueError(f"cannot read the prompts file {path}: {error.strerror}") from error
    table = _parse(raw, place)
    _expect(isinstance(table, dict), f"{place}: expected {{concept: [prompt, …]}}", table)
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
            raise ValueError(f"{place}: no concept {start_of(name)!r}; there are {names}")
        if wanted.count(name) > 1:
            raise ValueError(f"`concepts` names {name!r} twice")
    return ConceptPrompts(tuple(_concept(name, table[name], place) for name in wanted))


def _read(path: Path) -> bytes:
    if "\0" in str(path):
        raise ValueError(f"the prompts file {str(path)!r} has a null in its name")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"the prompts file {path} is a pipe or a device; expected a regular file")
    return path.read_bytes()


def _shipped(name: str) -> bytes:
    return (resources.files("saerepgeo.data.prompts") / name).read_bytes()


def _expect(is_right: bool, message: str, value: Any) -> None:
    """Raise ValueError with the JSON type of `value` where it is not right."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    if not is_right:
        found = names.get(type(value), "null" if value is None else "a number")
        raise ValueError(f"{message}, got {found}")


def _parse(raw: bytes, place: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{place}: not JSON at {where}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # 10,000 brackets deep
        raise ValueError(f"{place}: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {start_of(key)!r} stands twice in one object")
        table[key] = value
    return table


def _concept(name: str, entry: Any, place: str) -> Concept:
    place = f"{place}, concept {name!r}"
    if isinstance(entry, dict):
        if set(entry) != {"items", "prompts"}:
            keys = listed(sorted(entry)) or "none"
            raise ValueError(f"{place}: expected the keys items and prompts, got {keys}")
        prompts = _strings(entry["prompts"], place, "prompt")
        items = _strings(entry["items"], place, "item")
    else:
        prompts = _strings(entry, place, "prompt")
        items = json.loads(_shipped("items.json")).get(name) or bare_prompts(prompts)
    items = tuple(item.strip() for item in items)
    for item in items:
        check_printable(item, f"{place}, item")
    if len(set(map(match_key, items))) < max(len(items), MIN_ITEMS):
        found = listed(items) or "none"
        raise ValueError(f"{place}: expected at least {MIN_ITEMS} different items, got {found}")
    return _labeled(name, items, prompts, place)


def _labeled(name: str, items: tuple[str, ...], prompts: tuple[str, ...], place: str) -> Concept:
    mentions = Mentions(items)
    firsts = []
    for index, prompt in enumerate(prompts):
        first = next(mentions.of(prompt), None)
        if first is None:
            raise ValueError(
                f"{place}, prompt {index} ({start_of(prompt)!r}): names no item of "
                f"{listed(items)}; "
                'list the items as {"items": […], "prompts": […]} if these are not meant'
            )
        firsts.append(first)
    item_ids = tuple(first.item for first in firsts)
    used = set(item_ids)
    unused = [item for index, item in enumerate(items) if index not in used]
    if unused:
        raise ValueError(
            f"{place}: no prompt for {listed(unused)} (a prompt counts for the item it names "
            'first); add prompts, or list your items as {"items": […], "prompts": […]}'
        )
    return Concept(name, items, prompts, item_ids, tuple((m.start, m.end) for m in firsts))


def _strings(value: Any, place: str, kind: str) -> tuple[str, ...]:
    _expect(isinstance(value, list), f"{place}: expected a list of {kind}s", value)
    if not value:
        raise ValueError(f"{place}: the list of {kind}s is empty")
    for index, text in enumerate(value):
        where = f"{place}, {kind} {index}"
        _expect(isinstance(text, str), f"{where}: expected a string", text)
        check_characters(text, where)
        if not any(character.isprintable() and character != " " for character in text):
            raise ValueError(f"{where}: empty, or of nothing but spaces and marks that do not show")
        if len(text) > LONGEST_PROMPT:
            most = f"expected at most {LONGEST_PROMPT:,} characters"
            raise ValueError(f"{where} ({start_of(text)!r}): {most}, got {len(text):,}")
    return tuple(value)
