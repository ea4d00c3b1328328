"""Background text: what is read, fingerprints, every error's place."""

import gzip
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

import saerepgeo.data.text
from saerepgeo.data.text import TextSource, open_text
from saerepgeo.data.text.dictd import raw_entries, unwrap_entry
from saerepgeo.data.text.text_files import DOCUMENT_BYTES

ROWS = [{"text": "one"}, {"text": "", "id": 2}, {"text": "drei é"}, {"text": "four\nlines"}]
ROW_TEXTS = ["one", "", "drei é", "four\nlines"]


def jsonl(path: Path, rows: list[Any]) -> Path:
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def texts(source: TextSource) -> list[str]:
    return list(source.documents())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl(tmp_path: Path, name: str) -> None:
    source = open_text(jsonl(tmp_path / name, ROWS))
    assert source.is_finite
    assert texts(source) == ROW_TEXTS


def test_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"text": "x"}\n\n{"text": "y"}', encoding="utf-8")
    assert texts(open_text(path)) == ["x", "y"]


def test_several_files_follow_each_other(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{name}{i}"} for i in range(2)])
    by_glob = open_text(str(tmp_path / "*.jsonl"))
    assert texts(by_glob) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    listed: list[str | Path] = [tmp_path / "c.jsonl", str(tmp_path / "[ab].jsonl")]
    assert texts(open_text(listed)) == ["c0", "c1", "a0", "a1", "b0", "b1"]


def test_bracket_in_a_file_name_is_no_glob(tmp_path: Path) -> None:
    assert texts(open_text(jsonl(tmp_path / "a[1].jsonl", [{"text": "x"}]))) == ["x"]


def test_txt_joins_paragraphs_into_documents(tmp_path: Path) -> None:
    paragraphs = [letter * 700 for letter in "abcd"] + ["e" * 3000, "f", "g"]
    content = "\n\n \n" + "\n\n\n".join(paragraphs) + "\r\n\r\n"
    for name in ("a.txt", "a.txt.gz"):
        path = tmp_path / name
        raw = content.encode()
        path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
        documents = texts(open_text(path))
        assert documents == [
            "\n\n".join(paragraphs[:2]),
            "\n\n".join(paragraphs[2:4]),
            paragraphs[4][:2000],
            paragraphs[4][2000:] + "\n\nf\n\ng",
        ]


def test_txt_keeps_every_word_whatever_the_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    lines = [f"w{i}" if i % 7 else "" for i in range(3000)]
    path.write_text("\n".join(lines), encoding="utf-8")
    documents = texts(open_text(path))
    assert " ".join(documents).split() == " ".join(lines).split()
    assert len(documents) > 3
    assert max(len(document) for document in documents) <= DOCUMENT_BYTES


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfword")
    assert texts(open_text(tmp_path / "a.txt")) == ["word"]


ENTRIES = {
    "00-database-info": "About this dictionary\n",
    "zymase": "zymase\n    n 1: a complex of {enzymes} that\n         cause fermen-\n    tation\n",
    "pre-war": "pre-war\nprewar\n\n  Time be-\n  fore; pre-\n  and post-\n  or so.\n\n (x)\n",
}
UNWRAPPED = [
    "zymase\nn 1: a complex of enzymes that cause fermen-tation",
    "pre-war prewar\nTime be-fore; pre- and post- or so.\n(x)",
]


def dictionary(folder: Path, name: str = "small.dict.dz") -> Path:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(value: int) -> str:
        return (number(value // 64) if value >= 64 else "") + digits[value % 64]

    content, index = b"", []
    for headword, entry in ENTRIES.items():
        index.append(f"{headword}\t{number(len(content))}\t{number(len(entry.encode()))}\n")
        content += entry.encode()
    # Second headwords of the last entry, and of the one about the dictionary.
    index += [index[-1].replace("pre-war", "prewar"), index[0].replace("database", "small")]
    (folder / "small.index").write_text("".join(sorted(index)), encoding="utf-8")
    path = folder / name
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".dz") else content)
    return path


@pytest.mark.parametrize("name", ["small.dict", "small.dict.dz"])
def test_dictionary(tmp_path: Path, name: str) -> None:
    source = open_text(dictionary(tmp_path, name))
    assert texts(source) == UNWRAPPED
    assert [entry.decode() for _, entry in raw_entries(tmp_path / name)] == [*ENTRIES.values()][1:]


def test_unwrap_leaves_other_braces_and_spaces_alone() -> None:
    assert unwrap_entry("{ \n  \n   x {a b} } y") == "{\nx a b } y"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, r"small\.dict\.dz: the dictionary's index small\.index is not beside it"),
        ("zymase\tB", r"small\.index, line 1: expected headword, offset, length"),
        ("a\tA\tB\nzymase\t!\tB", r"small\.index, line 2: expected headword"),
        ("zymase\tA\tBAAA", r"small\.index: 'zymase' lies beyond the end of small\.dict\.dz"),
    ],
)
def test_bad_index(tmp_path: Path, index: str | None, message: str) -> None:
    path = dictionary(tmp_path)
    if index is None:
        (tmp_path / "small.index").unlink()
    else:
        (tmp_path / "small.index").write_text(index, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        texts(open_text(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"a\.jsonl, line 3: not JSON at column 2"),
        ('{"txt": "x", "id": 1}', r"line 3: no string under 'text', found txt, id"),
        ('{"text": 3}', r"line 3: no string under 'text', found text"),
        ('["x"]', r"line 3: no string under 'text', found list"),
        ('{"text": "\\ud800"}', r"line 3: half of a surrogate pair"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "x"}}\n\n{line}\n', encoding="utf-8")
    documents = open_text(path).documents()
    assert next(documents) == "x"
    with pytest.raises(ValueError, match=message) as caught:
        next(documents)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "offset"),
    [
        ("a.txt", b"abc\n\nd\xffe", 6),
        ("a.txt", b"\xef\xbb\xbfab\xff", 5),
        ("a.txt", b"x" * 3000 + b"\n\n\n\ny\xe9", 3005),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xe9"}\n', 24),
        ("a.txt.gz", gzip.compress(b"\xe9", mtime=0), 0),
    ],
)
def test_not_utf8_names_the_byte(tmp_path: Path, name: str, content: bytes, offset: int) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: not UTF-8 at byte {offset};"):
        texts(open_text(path))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz"])
def test_empty_source(tmp_path: Path, name: str) -> None:
    raw = b" \n\n\n"
    (tmp_path / name).write_bytes(gzip.compress(raw, mtime=0) if name.endswith("gz") else raw)
    with pytest.raises(ValueError, match=rf"no text in .*{name}"):
        texts(open_text(tmp_path / name))


def test_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*none\.txt$"):
        open_text(tmp_path / "none.txt")
    with pytest.raises(ValueError, match='no file smaple; `source` is "sample", "hf:NAME" or a f'):
        open_text("smaple")
    with pytest.raises(ValueError, match=r"no file matches .*\*\.txt"):
        open_text(str(tmp_path / "*.txt"))
    with pytest.raises(ValueError, match=r"is a folder; name its files, for example .*\*\.jsonl"):
        open_text(tmp_path)
    with pytest.raises(ValueError, match="`source` is an empty list"):
        open_text([])
    (tmp_path / "a.csv").touch()
    with pytest.raises(ValueError, match=r"a\.csv: expected a file \.txt, \.jsonl, \.dict"):
        open_text(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "small.dict.dz"])
@pytest.mark.parametrize("damage", ["cut", "plain"])
def test_damaged_gzip(tmp_path: Path, name: str, damage: str) -> None:
    dictionary(tmp_path)
    content = os.urandom(2000).hex().encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, mtime=0)[:-500] if damage == "cut" else content)
    with pytest.raises(ValueError, match=rf"{name}: damaged or not gzip"):
        texts(open_text(path))


def test_fingerprint_follows_the_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "other").mkdir()
    before = open_text(path).fingerprint
    assert before == open_text(jsonl(tmp_path / "other" / "b.jsonl", ROWS)).fingerprint
    assert before != open_text([path, path]).fingerprint
    as_txt = tmp_path / "a.txt"
    as_txt.write_bytes(path.read_bytes())
    assert before != open_text(as_txt).fingerprint
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert before != open_text(path).fingerprint


def test_fingerprint_of_a_large_file_follows_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saerepgeo.data.text.text_files.HASHED_BYTES", 10)
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    before = open_text(path).fingerprint
    assert before == open_text(path).fingerprint
    os.utime(path, ns=(0, 1))
    assert before != open_text(path).fingerprint


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    for split, count in (("train", 5), ("validation", 2)):
        rows = [{"text": f"{split} {i}", "title": f"t{i}"} for i in range(count)]
        jsonl(folder / f"{split}.jsonl", rows)
    return folder


def test_hub_streams_a_split(hub_folder: Path) -> None:
    source = open_text(f"hf:{hub_folder}")
    assert not source.is_finite
    assert texts(source) == [f"train {i}" for i in range(5)]
    assert texts(open_text(f"hf:{hub_folder}::validation")) == ["validation 0", "validation 1"]


def test_hub_fingerprint(hub_folder: Path) -> None:
    before = open_text(f"hf:{hub_folder}").fingerprint
    assert before == open_text(f"hf:{hub_folder}").fingerprint
    assert before != open_text(f"hf:{hub_folder}::validation").fingerprint
    jsonl(hub_folder / "train.jsonl", [{"text": "other", "title": "t"}])
    assert before != open_text(f"hf:{hub_folder}").fingerprint


def test_hub_configurations(hub_folder: Path) -> None:
    configs = [
        f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("train", "validation")
    ]
    (hub_folder / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    assert texts(open_text(f"hf:{hub_folder}:validation")) == ["validation 0", "validation 1"]
    with pytest.raises(ValueError, match=r"cannot open the data set hf:.*: .*other"):
        texts(open_text(f"hf:{hub_folder}:other"))


def test_hub_without_a_row_and_with_a_bad_one(hub_folder: Path) -> None:
    (hub_folder / "train.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"no text in hf:.*set, split 'train'"):
        texts(open_text(f"hf:{hub_folder}"))
    (hub_folder / "train.jsonl").write_text('{"text": 3\n')
    with pytest.raises(ValueError, match=r"hf:.*set: .*JSON parse error"):
        texts(open_text(f"hf:{hub_folder}"))


def test_hub_errors(hub_folder: Path) -> None:
    jsonl(hub_folder / "train.jsonl", [{"title": "t", "body": "x"}])
    with pytest.raises(ValueError, match=r"no string in column 'text', found title, body"):
        texts(open_text(f"hf:{hub_folder}"))
    jsonl(hub_folder / "train.jsonl", [{"text": "x", "title": "t"}])
    with pytest.raises(ValueError, match=r"hf:.*set: Bad split: test"):
        texts(open_text(f"hf:{hub_folder}::test"))
    with pytest.raises(ValueError, match=r"cannot open the data set hf:.*/none: "):
        texts(open_text(f"hf:{hub_folder / 'none'}"))
    with pytest.raises(ValueError, match=r'expected "hf:NAME.*", got "hf:a:b:c:d"'):
        open_text("hf:a:b:c:d")
    with pytest.raises(ValueError, match=r'got "hf:"'):
        open_text("hf:")


def test_sample_is_what_its_notice_says() -> None:
    source = open_text("sample")
    documents = texts(source)
    assert len(documents) > 3000
    assert 4e6 < sum(map(len, documents)) < 5e6
    assert len(set(documents)) == len(documents)
    assert sum(" (noun): " in document for document in documents) > 0.9 * len(documents)
    initials = {document[0].lower() for document in documents}
    assert set("abcdefghijklmnopqrstuvwxyz") <= initials, "not spread over the alphabet"
    for document in documents:
        assert not {"{", "}"} & set(document), document
        assert "[syn" not in document, document
        assert "  " not in document, document
    folder = Path(saerepgeo.data.text.__file__).parent / "sample"
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in (
        folder / "NOTICE.txt"
    ).read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_corpus_script_reads_wordnet_entries(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "checkpoints/smollm2-135m/make_corpus.py"
    spec = importlib.util.spec_from_file_location("make_corpus", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    entries = (
        'covenant\n    n 1: a signed agreement; "they kept it" [syn: {covenant},\n'
        "         {compact}] [ant: {breach}]\n    2: (Bible) a promise\n    v 1: enter into 3: x\n"
    )
    content = entries + entries.replace("covenant\n", "compact\n", 1)
    half = len(entries)
    (tmp_path / "wn.dict").write_text(content, encoding="utf-8")
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at, size = (digits[n // 64] + digits[n % 64] for n in (half, half - 1))
    one = digits[half // 64] + digits[half % 64]
    (tmp_path / "wn.index").write_text(f"covenant\tA\t{one}\ncompact\t{at}\t{size}\n")
    assert list(script.wordnet(tmp_path / "wn.dict")) == [
        'covenant (noun): a signed agreement; "they kept it". Synonyms: compact. Antonym: breach.\n'
        "covenant (noun): (Bible) a promise.\ncovenant (verb): enter into 3: x."
    ]
