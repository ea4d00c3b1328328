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


def test_items_are_the_bare_prompts(tmp_path: Path) -> None:
    prompts = ["apple", "She ate an apple.", "a pear tree", "Pear", "pear", "plum"]
    fruit = load(tmp_path, {"fruit": prompts})["fruit"]
    assert fruit.items == ("apple", "Pear", "plum")
    assert fruit.item_ids == (0, 0, 1, 1, 1, 2)


OWN = {
    "elements": ["Hydrogen", "Beryllium", "Astatine", "Beryllium is the fourth element."],
    "color": ["Red", "Indigo", "The sky at dusk is indigo.", "Puce", "A puce coat over red."],
    "number": ["Zero", "One", "Zero comes before one.", "Googol"],
    "phonetic_symbol": ["ə", "æ", "ɑ", "ɑ̃", "i", "iː", "t", "t͡ʃ", "ʃ", "The nasal ɑ̃ is long."],
    "months": ["Nivôse", "Pluviôse", "Snow falls in nivôse."],
}
"""Concepts of shipped names with items of their own: the first words of each."""


@pytest.mark.parametrize("name", OWN)
def test_a_shipped_name_may_have_other_items(tmp_path: Path, name: str) -> None:
    concept = load(tmp_path, {name: OWN[name]})[name]
    assert concept.items == tuple(prompt for prompt in OWN[name] if " " not in prompt)
    assert concept.prompts == tuple(OWN[name])
    named = [concept.items[item_id] for item_id in concept.item_ids]
    for prompt, item in zip(OWN[name], named, strict=True):
        assert item == prompt if " " not in prompt else item.casefold() in prompt.casefold()
    assert load(tmp_path, {name: OWN[name], "other": ["a b", "c"]})[name] == concept


def test_a_mark_belongs_to_the_letter_before_it(tmp_path: Path) -> None:
    """Of an affricate, a nasal vowel or a dental neither part is a mention of the plain letter."""
    prompts = ["ɑ", "ɑ̃", "t", "t͡ʃ", "ʃ", "Say t͡ʃ.", "Say ʃ, not t.", "ɑ̃ is not ɑ.", "Dental t̪."]
    symbols = load(tmp_path, {"phonetic_symbol": prompts})["phonetic_symbol"]
    assert symbols.items == ("ɑ", "ɑ̃", "t", "t͡ʃ", "ʃ")
    assert symbols.item_ids == (0, 1, 2, 3, 4, 3, 4, 1)
    assert symbols.left_out == ("Dental t̪.",)


def test_prompts_that_name_no_bare_item_are_left_out_and_told(tmp_path: Path) -> None:
    table = {"fruit": ["fig", "A pear.", "plum", "A fig.", "No figment."], "days": ["one", "two"]}
    prompts = load(tmp_path, table)
    assert prompts["fruit"].prompts == ("fig", "plum", "A fig.")
    assert prompts["fruit"].mentions == ((0, 3), (0, 4), (2, 5))
    assert prompts["fruit"].left_out == ("A pear.", "No figment.")
    assert prompts.summary == (
        "fruit 2 items and 3 prompts, days 2 items and 2 prompts; items are the prompts that "
        "contain no other one and do not end in . ? or !; 2 left out, for naming none of them: "
        "A pear., No figment."
    )
    listed = load(tmp_path, {"fruit": {"items": PAIR, "prompts": PAIR}})
    assert listed.summary == "fruit 2 items and 2 prompts"


def test_the_summary_of_a_hostile_file_is_one_line(tmp_path: Path) -> None:
    left = [f"{i}\n\x1b[2J{'x' * 500}." for i in range(200)]
    summary = load(tmp_path, {f"c{i}": [*PAIR, *left] for i in range(30)}).summary
    assert summary.isprintable()
    assert len(summary) < 1200
    assert "(30 in all)" in summary
    assert "; 6000 left out, for" in summary


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
        (
            {"fruit": {"items": PAIR, "prompts": [*PAIR, "A pear."]}},
            r"prompt 2 \('A pear\.'\): names no item of fig, plum",
        ),
        ({"fruit": ["fig"]}, r"expected at least 2 different items, got fig"),
        ({"fruit": ["A fig."]}, r"expected at least 2 different items, got none"),
        ({"fruit": {"items": PAIR}}, r"expected the keys items and prompts, got items"),
        ({"fruit": {"items": PAIR, "prompts": ["fig"]}}, r"'fruit': no prompt for plum"),
        ({"fruit": {"items": ["fig", "Fig"], "prompts": PAIR}}, r"2 different items, got fig, Fig"),
        ({"fruit": {"items": [1], "prompts": PAIR}}, r"'fruit', item 0: expected a string"),
        ({"fruit": {"items": [], "prompts": PAIR}}, r"the list of items is empty"),
        (
            {"days": ["We meet on Monday.", "Tuesday"]},
            r"concept 'days': expected at least 2 different items, got Tuesday; items are the pro",
        ),
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
    with pytest.raises(ValueError, match=r"no concept 'fruits'; there are fruit; set"):
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
