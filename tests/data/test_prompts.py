"""Prompts files: labels of the shipped one, a user's in both forms, every error with its place."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from saerepgeo.data.prompts import Concept, ConceptPrompts, load_prompts

N_ITEMS = {
    "months": 12,
    "days": 7,
    "elements": 20,
    "color": 10,
    "planets": 8,
    "number": 10,
    "alphabet": 26,
    "phonetic_symbol": 26,
    "constellations": 12,
}
SHIPPED = load_prompts()


def write(path: Path, table: Any) -> Path:
    path.write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
    return path


def load(path: Path, table: Any, **arguments: Any) -> ConceptPrompts:
    return load_prompts(write(path / "prompts.json", table), **arguments)


def test_shipped_concepts_and_items() -> None:
    assert {concept.name: len(concept.items) for concept in SHIPPED} == N_ITEMS
    assert SHIPPED.n_items == sum(N_ITEMS.values())
    assert SHIPPED.first_item_ids[:4] == (0, 12, 19, 39)


@pytest.mark.parametrize("concept", SHIPPED.concepts, ids=SHIPPED.names)
def test_shipped_prompts_are_fit_to_train_on(concept: Concept) -> None:
    assert min(Counter(concept.item_ids).values()) >= 7
    assert len(set(concept.prompts)) == len(concept.prompts)
    n_first = n_last = 0
    for prompt, item_id, (start, end) in zip(
        concept.prompts, concept.item_ids, concept.mentions, strict=True
    ):
        item = concept.items[item_id]
        assert prompt[start:end].casefold() == item.casefold()
        assert len(prompt.split()) <= 16
        if prompt == item:
            continue
        assert prompt[0].isupper()
        assert prompt[-1] == "."
        words = re.findall(r"[\w-]+", prompt[:start] + prompt[end:])
        others = {word if len(item) == 1 else word.casefold() for word in words}
        listed = {other if len(item) == 1 else other.casefold() for other in concept.items}
        assert not others & listed, f"{prompt!r} names a second item"
        n_first += start == 0
        n_last += end == len(prompt) - 1
    assert n_first == 0
    assert n_last <= 0.7 * (len(concept.prompts) - len(concept.items))
    assert set(concept.items) < set(concept.prompts)


def test_articles_agree_with_the_word_after_them() -> None:
    spoken_with_vowel = set("AEFHILMNORSX")
    silent = {"hour", "honest"}
    consonant = {"one", "unit", "unicorn", "used", "user", "uniform", "universal", "European"}
    for concept in SHIPPED:
        for prompt in concept.prompts:
            for article, word in re.findall(r"\b([Aa]n?) ([\w-]+)", prompt):
                if concept.name == "alphabet" and article == "A":
                    continue  # the letter itself
                has_vowel = word in silent or (
                    word in spoken_with_vowel
                    if len(word) == 1
                    else word[0].lower() in "aeiou" and word not in consonant
                )
                # NATO and the like are spoken as words; single letters by their names
                assert (article.lower() == "an") == (has_vowel or word == "X-ray"), prompt


def test_first_mention_is_the_label(tmp_path: Path) -> None:
    table = {"months": {"items": ["January", "February"], "prompts": []}}
    table["months"]["prompts"] = ["February follows January.", "january", "In JANUARY, February"]
    months = load(tmp_path, table)["months"]
    assert [months.items[item_id] for item_id in months.item_ids] == [
        "February",
        "January",
        "January",
    ]
    assert months.mentions == ((0, 8), (0, 7), (3, 10))


def test_mention_is_a_whole_word_and_the_longest(tmp_path: Path) -> None:
    items = ["York", "New", "New York", "Ark"]
    prompts = ["Yorkshire lies far from New York.", "An ark, not a lark.", "York", "New-York"]
    towns = load(tmp_path, {"towns": {"items": items, "prompts": prompts}})["towns"]
    named = [towns.items[item_id] for item_id in towns.item_ids]
    assert named == ["New York", "Ark", "York", "New"]
    assert towns.mentions[0] == (24, 32)


def test_single_characters_match_by_case(tmp_path: Path) -> None:
    prompts = ["A word may start with a B.", "The letter a is not meant, but A is.", "B"]
    letters = load(tmp_path, {"letters": {"items": ["A", "B"], "prompts": prompts}})["letters"]
    assert letters.mentions == ((0, 1), (31, 32), (0, 1))


def test_items_of_an_unknown_concept_are_its_bare_prompts(tmp_path: Path) -> None:
    prompts = ["apple", "She ate an apple.", "a pear tree", "Pear", "pear", "plum"]
    fruit = load(tmp_path, {"fruit": prompts})["fruit"]
    assert fruit.items == ("apple", "Pear", "plum")
    assert fruit.item_ids == (0, 0, 1, 1, 1, 2)


def test_known_concept_has_the_shipped_items(tmp_path: Path) -> None:
    names = list(SHIPPED["days"].items)
    prompts = [f"We meet on {name}." for name in reversed(names)]
    days = load(tmp_path, {"days": prompts})["days"]
    assert days.items == tuple(names)
    assert days.item_ids == (6, 5, 4, 3, 2, 1, 0)


def test_concepts_come_in_the_order_asked_for() -> None:
    prompts = load_prompts(concepts=["days", "months"])
    assert prompts.names == ("days", "months")
    assert prompts["months"] == SHIPPED["months"]
    assert len(prompts) == 2
    with pytest.raises(KeyError, match="no concept 'color'; there are days, months"):
        prompts["color"]


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"fruit": ["fig", "plum"]}).encode())
    assert load_prompts(path).names == ("fruit",)


PAIR = ["fig", "plum"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('{"fruit": [}', r"prompts\.json: not JSON at line 1, column 12"),
        ('{\n "fruit": ["fig",]\n}', r"not JSON at line 2, column"),
        ('{"fruit": ["a"], "fruit": ["b"]}', r"the key 'fruit' stands twice"),
        (["fig"], r"expected \{concept: \[prompt, …\]\}, got a list"),
        ("null", r"got null"),
        ({}, r"no concept"),
        ({"fruit": "fig"}, r"concept 'fruit': expected a list of prompts, got a string"),
        ({"fruit": None}, r"concept 'fruit': expected a list of prompts, got null"),
        ({"fruit": []}, r"concept 'fruit': the list of prompts is empty"),
        ({"fruit": [*PAIR, 3]}, r"concept 'fruit', prompt 2: expected a string, got a number"),
        ({"fruit": [*PAIR, ["x"]]}, r"concept 'fruit', prompt 2: expected a string, got a list"),
        ({"fruit": [*PAIR, " "]}, r"concept 'fruit', prompt 2: empty"),
        ({"fruit": [*PAIR, "A pear."]}, r"prompt 2 \('A pear\.'\): names no item of fig, plum"),
        ({"fruit": ["fig"]}, r"expected at least 2 different items, got fig"),
        ({"fruit": ["A fig."]}, r"expected at least 2 different items, got none"),
        ({"fruit": {"items": PAIR}}, r"expected the keys items and prompts, got items"),
        ({"fruit": {"items": PAIR, "prompts": ["fig"]}}, r"'fruit': no prompt for plum"),
        ({"fruit": {"items": ["fig", "Fig"], "prompts": PAIR}}, r"2 different items, got fig, Fig"),
        ({"fruit": {"items": [1], "prompts": PAIR}}, r"'fruit', item 0: expected a string"),
        ({"fruit": {"items": [], "prompts": PAIR}}, r"the list of items is empty"),
        ({"days": ["Monday", "Tuesday"]}, r"concept 'days': no prompt for Wednesday, Thursday"),
    ],
)
def test_bad_file_names_the_place(tmp_path: Path, table: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, table)
    assert "prompts.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_folder_and_encoding(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the prompts file .*\.json: No such file"):
        load_prompts(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"cannot read the prompts file .*: Is a directory"):
        load_prompts(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"caf\xe9": ["a"]}')
    with pytest.raises(ValueError, match=r"latin\.json: not UTF-8 at byte 5"):
        load_prompts(tmp_path / "latin.json")


def test_unknown_concept_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no concept 'fruits'; there are fruit$"):
        load(tmp_path, {"fruit": PAIR}, concepts=["fruits"])
    with pytest.raises(ValueError, match="shipped prompts file: no concept 'month'; there are mon"):
        load_prompts(concepts=["month"])
    with pytest.raises(ValueError, match="`concepts` names 'days' twice"):
        load_prompts(concepts=["days", "days"])
    with pytest.raises(ValueError, match="`concepts` is a list of names, got the string 'days'"):
        load_prompts(concepts="days")
    with pytest.raises(ValueError, match="no concept"):
        load_prompts(concepts=[])


def test_only_concepts_asked_for_are_checked(tmp_path: Path) -> None:
    table = {"fruit": PAIR, "broken": []}
    assert load(tmp_path, table, concepts=["fruit"])["fruit"].items == ("fig", "plum")
