"""Prompts files."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults.faults import Fault, Place, with_data, with_prompts

PAIR = ["fig", "plum"]
DEEP = "[" * 100_000 + "]" * 100_000
NAMES = "prompts.json.*the concepts {} and {} would write the same files; rename"


def given_path(name: str, says: str, make: Callable[[Place], Path | str]) -> Fault:
    """Return the fault of a prompts file that `make` makes, or of a place that is no file."""

    def given(place: Place) -> Sequence[str]:
        return place.data(prompts=str(make(place)), concepts=None).command()

    return Fault(name, given, says)


def pipe(place: Place) -> Path:
    path = place.folder / "prompts.json"
    os.mkfifo(path)
    return path


def other_concepts(place: Place) -> list[str]:
    path = place.write("prompts.json", json.dumps({"fruit": PAIR}))
    return place.data(prompts=str(path), concepts=["months"]).command()


def concept(name: str, says: str, entry: Any) -> Fault:
    """Return the fault of one concept's entry."""
    return with_prompts(name, f"prompts.json, concept 'fruit'{says}", {"fruit": entry})


def named(name: str, says: str, *names: str) -> Fault:
    """Return the fault of the names of concepts that are right otherwise."""
    return with_prompts(name, says, dict.fromkeys(names, PAIR))


def listed(prompts: Any, items: Any = PAIR) -> dict[str, Any]:
    return {"items": items, "prompts": prompts}


FAULTS: list[Fault] = [
    with_prompts("not JSON", "prompts.json.*not JSON at line 1, column 2", "{"),
    with_prompts("JSON cut short", "prompts.json.*not JSON at line 1", '{"fruit": ["fig", "pl'),
    with_prompts("trailing comma", "not JSON at line 1, column", '{"fruit": ["fig", "plum",]}'),
    with_prompts("single quotes", "not JSON at line 1, column 2", "{'fruit': ['fig', 'plum']}"),
    with_prompts("two documents", "not JSON at line 2", '{"a": ["b"]}\n{"c": ["d"]}'),
    with_prompts("a list", "prompts.json.*expected .concept.*got a list", ["January"]),
    with_prompts("a string", "prompts.json.*got a string", '"January"'),
    with_prompts("a number", "prompts.json.*got a number", "3"),
    with_prompts("null", "prompts.json.*got null", "null"),
    with_prompts("NaN", "prompts.json.*got a number", "NaN"),
    with_prompts("true", "prompts.json.*got a boolean", "true"),
    with_prompts("empty object", "prompts.json: no concept; expected", {}),
    with_prompts("empty file", "prompts.json: not JSON at line 1, column 1", b""),
    with_prompts("blank file", "prompts.json: not JSON at line", b" \n\n"),
    with_prompts("null bytes", "prompts.json: not JSON at line 1, column 1", b"\0" * 4096),
    with_prompts("binary", "prompts.json: not UTF-8 at byte 0; save it as UTF-8", b"\x89PNG\r\n"),
    with_prompts("latin-1", "prompts.json: not UTF-8 at byte 5", b'{"caf\xe9": ["a"]}'),
    with_prompts("UTF-16", "not UTF-8 at byte 0", json.dumps({"fruit": PAIR}).encode("utf-16")),
    with_prompts("gzip", "not UTF-8 at byte 1", b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
    with_prompts("deep lists", "prompts.json: .*recursion", DEEP),
    with_prompts("deep objects", "prompts.json: .*recursion", '{"a":' * 100_000),
    with_prompts("a number of 5,000 digits", "prompts.json: Exceeds the limit", "9" * 5000),
    with_prompts("key twice", "the key 'fruit' stands twice", '{"fruit": ["a"], "fruit": ["b"]}'),
    with_prompts("key twice inside", "'items' stands twice", '{"f": {"items": [], "items": []}}'),
    given_path(
        "no such file", "cannot read the prompts file .*: No such file", lambda p: "none.json"
    ),
    given_path("a folder", "cannot read the prompts file .*: Is a directory", lambda p: p.folder),
    given_path("a pipe", "prompts.json is a pipe or a device", pipe),
    given_path("/dev/zero", "/dev/zero is a pipe or a device", lambda p: "/dev/zero"),
    given_path("/dev/null", "/dev/null is a pipe or a device", lambda p: "/dev/null"),
    given_path("a name with a null", "prompts file", lambda p: "a\0b.json"),
    given_path("a very long name", "cannot read the prompts file", lambda p: "a" * 300),
    with_data("misspelt concept", "no concept 'mnths'; there are months", concepts=["mnths"]),
    with_data("concept twice", "`concepts` names 'days' twice", concepts=["days", "days"]),
    with_data("no concepts", "no concept", concepts=[]),
    concept("a string", ": expected a list of prompts, got a string", "fig"),
    concept("null", ": expected a list of prompts, got null", None),
    concept("a number", ": expected a list of prompts, got a number", 3),
    concept("no prompt", ": the list of prompts is empty", []),
    concept("no item", ": the list of items is empty", listed(PAIR, [])),
    concept("no prompt of items", ": the list of prompts is empty", listed([])),
    concept("only items", ": expected the keys items and prompts, got items", {"items": PAIR}),
    concept("other keys", r": expected the keys.*got \\x1b\[2J", {"\x1b[2J": PAIR}),
    concept("a number as prompt", ", prompt 2: expected a string, got a number", [*PAIR, 3]),
    concept("null as prompt", ", prompt 0: expected a string, got null", [None, *PAIR]),
    concept("true as prompt", ", prompt 0: expected a string, got a boolean", [True]),
    concept("a list as prompt", ", prompt 2: expected a string, got a list", [*PAIR, PAIR]),
    concept("a number as item", ", item 0: expected a string", listed(PAIR, [1, 2])),
    concept("empty prompt", ", prompt 2: empty", [*PAIR, ""]),
    concept("no-break spaces", ", prompt 2: empty", [*PAIR, "\u00a0\u00a0"]),
    concept("zero-width spaces", ", prompt 2: empty", [*PAIR, "\u200b\u200b"]),
    concept("byte order marks", ", prompt 2: empty", [*PAIR, "\ufeff"]),
    concept("line breaks", ", prompt 2: empty", [*PAIR, "\n\r\n\t"]),
    concept("controls", ", prompt 2: empty", [*PAIR, "\0\x07\x1b"]),
    concept("marks as item", ", item 0: empty", listed(PAIR, ["\u200e", "fig"])),
    concept("half a surrogate pair", ", prompt 2: half of a surrogate", [*PAIR, "fig \ud83d"]),
    concept("other half, in an item", ", item 0: half of a surr", listed(PAIR, ["\udc4d", "fig"])),
    concept("one item", ": expected at least 2 different items, got fig; items are", ["fig"]),
    with_prompts(
        "sentences of a shipped concept",
        "concept 'days': expected at least 2 different items, got none; items are the prompts",
        {"days": ["We meet on Monday.", "We meet on Tuesday."]},
    ),
    Fault(
        "concepts of another file",
        other_concepts,
        "prompts.json: no concept 'months'; there are fruit; set `concepts`.*null for all",
    ),
    concept(
        "items alike",
        ": expected at least 2 different items, got fig, Fig",
        listed(PAIR, ["fig", "Fig"]),
    ),
    concept("no bare prompt", ": expected at least 2 different items", ["A fig.", "A plum."]),
    concept("item in no prompt", ": no prompt for plum", listed(["fig"])),
    concept(
        "prompt of no item",
        r", prompt 1 \('A pear.'\): names no item of fig, plum",
        listed(["fig", "A pear."]),
    ),
    concept(
        "item within a word", ", prompt 1 .*names no item", listed(["fig", "figment, plumber"])
    ),
    concept("item with an escape", ", item .*cannot be shown", [*PAIR, "\x1b[31mred"]),
    concept(
        "item with a bell", ", item .*cannot be shown", listed([*PAIR, "a\ab"], [*PAIR, "a\ab"])
    ),
    concept("item over two lines", ", item .*cannot be shown", listed(PAIR, [*PAIR, "New\nYork"])),
    concept(
        "three million characters",
        ", prompt 2 .*at most 100,000 characters, got 3,000,000",
        [*PAIR, "a fig " * 500_000],
    ),
    concept(
        "one word of 3 million letters", ", prompt 2 .*at most 100,000", [*PAIR, "x" * 3_000_000]
    ),
    with_prompts(
        "longer than the positions",
        "at most 64 tokens .*fig.* of concept .fruit. is 801",
        {"fruit": [*PAIR, "fig " * 200]},
    ),
    concept(
        "3,000 items in no prompt",
        r": no prompt for word 0, .*\(3,000 in all\)",
        listed(["fig"], ["fig", *(f"word {i}" for i in range(3000))]),
    ),
    named("names apart by a space", NAMES.format("'a b'", "'a_b'"), "a b", "a_b"),
    named("names apart by two spaces", NAMES.format("'a b'", "'a  b'"), "a b", "a  b"),
    named("names apart by a slash", NAMES.format("'a/b'", "'a:b'"), "a/b", "a:b"),
    named("names apart by case", NAMES.format("'Fruit'", "'fruit'"), "Fruit", "fruit"),
    named("no name", "concept '': a concept without a name", ""),
    named("blank name", "concept ' ': a concept without a name", " "),
    named("directional mark in a name", r"concept 'fr.u202euit'.*cannot be shown", "fr\u202euit"),
    named("right-to-left mark in a name", "cannot be shown", "a\u200fb"),
    named("terminal escape in a name", r"concept '.x1b\[2Jfruit'.*cannot be shown", "\x1b[2Jfruit"),
    named("title escape in a name", "cannot be shown", "\x1b]0;owned\x07fruit"),
    named("8-bit escape in a name", "cannot be shown", "\x9b31mfruit"),
    named("line break in a name", "cannot be shown", "a\nerror: b"),
    named("null in a name", "cannot be shown", "a\0b"),
    named("half a surrogate in a name", "half of a surrogate pair", "a\ud800"),
    named("a name of 300 characters", "a name of at most 100 characters, got 300", "x" * 300),
    named("escape in another's name", "cannot be shown", "fruit", "\x1b[2J"),
]
