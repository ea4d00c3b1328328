"""Prompts files that are right, whatever they look like; any other ends in one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from faults.faults import Place
from faults.test_faults import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saerepgeo.data.prompts import load_prompts
from saerepgeo.data.prompts.mentions import Mentions, bare_prompts

NAMES = ["U.S. fruit", "פירות", "ن‌فاکهة", "果物", "🍎 fruit", "../../fruit", "a%b{c}", "-fruit"]


def test_concepts_of_any_name_train(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dot, a path, another script: figures carry the name, files stay in their folder."""
    items = ["fig", "plum", "pear", "lime"]
    prompts = [*items, *(f"{word} {item}" for item in items for word in ("day", "year", "old"))]
    table = {name: {"items": items, "prompts": prompts} for name in NAMES}
    path = place.write("prompts.json", json.dumps(table))
    place.data(prompts=str(path), concepts=None).trainer(limit_val_batches=2, max_steps=1)
    place.config["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(tmp_path / "out")},
    }
    place.trainer(val_check_interval=1, log_every_n_steps=1)
    assert run(place.command(), monkeypatch) == 0
    logged = "".join(p.read_text() for p in (tmp_path / "out").rglob("metrics.csv"))
    for name in NAMES:
        assert f"val/aedp/{name}" in logged
    assert {path.name for path in tmp_path.iterdir()} <= {"given", "out"}


def reference(items: list[str], text: str) -> list[tuple[int, int]]:
    """Return start and end of the first mention, by one pattern of all items."""
    longest = sorted(items, key=lambda item: -len(item))
    flags = ("" if len(item) == 1 else "i" for item in longest)
    options = (f"(?{flag}:{re.escape(item)})" for flag, item in zip(flags, longest, strict=True))
    match = re.search(rf"(?<!\w)(?:{'|'.join(options)})(?!\w)", text)
    return [match.span()] if match else []


WORDS = st.lists(
    st.sampled_from(
        ["a", "A", "b", "New", "York", "new-york", "é", "É", "_x", "7", "-", "果", "x.y"]
    ),
    min_size=1,
)


@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=6), WORDS.map(" ".join))
@settings(max_examples=300, deadline=None)
def test_mentions_are_what_one_pattern_finds(items: list[str], text: str) -> None:
    found = [(mention.start, mention.end) for mention in Mentions(items).of(text)]
    assert found[:1] == reference(items, text)


def test_thousands_of_bare_prompts_take_a_moment(tmp_path: Path) -> None:
    prompts = [f"word {i} of many" for i in range(3000)]
    assert bare_prompts([*prompts, "a word 7 of many", "word"]) == ("word",)
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"words": prompts}))
    concept = load_prompts(path)["words"]
    assert concept.item_ids == tuple(range(3000))


def test_layouts_that_are_right(tmp_path: Path) -> None:
    path, table = tmp_path / "prompts.json", {"fruit": ["fig", "The fig.", "plum", "pl\u0301um"]}
    for indent in (None, 1):
        text = json.dumps(table, indent=indent, ensure_ascii=False).replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_prompts(path)["fruit"].items == ("fig", "plum", "pl\u0301um")
    path.write_text(
        json.dumps({"towns": {"items": ["New", "New York"], "prompts": ["new york", "New"]}})
    )
    assert load_prompts(path)["towns"].item_ids == (1, 0)


TEXT = st.text(max_size=8) | st.sampled_from(["fig", "plum", "A fig.", " ", "\u200f", "\x1b[2J"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
LISTS = st.lists(TEXT, max_size=5) | st.lists(SCALARS, max_size=3)
ENTRIES = (
    LISTS
    | SCALARS
    | st.fixed_dictionaries({}, optional={"items": LISTS, "prompts": LISTS, "x": LISTS})
)
TABLES = st.dictionaries(TEXT, ENTRIES, max_size=3).map(json.dumps).map(str.encode)


@given(TABLES | ENTRIES.map(json.dumps).map(str.encode) | st.binary(max_size=40))
@settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prompts.json"
    path.write_bytes(content)
    try:
        prompts: Any = load_prompts(path)
    except ValueError as error:
        said = str(error)
        assert said.startswith(str(path))
        assert said.isprintable(), repr(said)
        assert len(said) < 700
        return
    for concept in prompts:
        assert concept.name.strip()
        assert len(concept.items) >= 2
        for prompt, item, (start, end) in zip(
            concept.prompts, concept.item_ids, concept.mentions, strict=True
        ):
            assert prompt[start:end].casefold() == concept.items[item].casefold()
