"""Background text: files that are none, damaged, too short, or that expand without end."""

import gzip
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults.faults import Fault, Place, with_data

ROW = b'{"text": "the old red day"}\n'
WORDS = b"the old red day of rain and snow "


def packed(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def with_text(name: str, says: str, file: str, content: bytes, **settings: Any) -> Fault:
    """Return the fault of one file of text."""

    def given(place: Place) -> Sequence[str]:
        return place.data(text=str(place.write(file, content)), **settings).command()

    return Fault(name, given, f"{file}{says}")


def given_path(name: str, says: str, make: Callable[[Place], Path | str | list[str]]) -> Fault:
    """Return the fault of what `make` returns as `text`."""

    def given(place: Place) -> Sequence[str]:
        made = make(place)
        return place.data(text=made if isinstance(made, list) else str(made)).command()

    return Fault(name, given, says)


def pipe(place: Place) -> Path:
    path = place.folder / "a.txt"
    os.mkfifo(path)
    return path


def link_to_nothing(place: Place) -> Path:
    path = place.folder / "a.txt"
    path.symlink_to("nowhere.txt")
    return path


def rows(line: bytes) -> bytes:
    return ROW * 3 + line + b"\n" + ROW * 3


FAULTS: list[Fault] = [
    given_path("no such file", "there is no file .*none.txt", lambda p: "none.txt"),
    given_path("misspelt sample", 'no file smaple; `source` is "sample"', lambda p: "smaple"),
    given_path("a folder", r"is a folder; name its files, for example .*\*", lambda p: p.folder),
    given_path("glob without match", r"no file matches .*\*.txt", lambda p: p.folder / "*.txt"),
    given_path("glob of a folder", r"no file matches .*\*", lambda p: p.folder.parent / "giv*"),
    given_path("empty list", "`source` is an empty list", lambda p: []),
    given_path("one of two missing", "there is no file b.txt", lambda p: [str(p.text), "b.txt"]),
    given_path("a pipe", "a.txt is a pipe or a device", pipe),
    given_path("a link to nothing", "there is no file .*a.txt", link_to_nothing),
    given_path("/dev/zero", "/dev/zero is a pipe or a device", lambda p: "/dev/zero"),
    given_path("/dev/null", "/dev/null is a pipe or a device", lambda p: "/dev/null"),
    given_path(
        "the tokenizer's file",
        "tokenizer.json: expected a file .txt",
        lambda p: p.lm / "tokenizer.json",
    ),
    given_path("no name of a data set", 'expected "hf:NAME', lambda p: "hf:"),
    given_path("too many parts of a name", 'expected "hf:NAME', lambda p: "hf:a:b:c:d"),
    with_text("another kind", ": expected a file .txt, .jsonl, .dict", "a.csv", WORDS),
    with_text("no suffix", ": expected a file .txt", "a", WORDS),
    with_text("zip", ": expected a file .txt", "a.zip", b"PK\x03\x04"),
    with_text("pickle", ": expected a file .txt", "a.pkl", b"\x80\x04K\x01."),
    with_text("loading script", ": expected a file .txt", "a.py", b"open('owned', 'w')"),
    with_text("empty file", "", "a.txt", b""),
    with_text("empty jsonl", "", "a.jsonl", b""),
    with_text("empty gzip", "", "a.txt.gz", packed(b"")),
    with_text("nothing at all, as gzip", "", "a.txt.gz", b""),
    with_text("blank lines", "", "a.txt", b" \n\r\n\t\n" * 1000),
    with_text("binary", ": not UTF-8 at byte", "a.txt", bytes(range(256)) * 200),
    with_text("PNG", ": not UTF-8 at byte 0", "a.txt", b"\x89PNG\r\n\x1a\n"),
    with_text("latin-1", ": not UTF-8 at byte 3; save it as UTF-8", "a.txt", b"caf\xe9 " * 900),
    with_text("UTF-16", ": not UTF-8 at byte 0", "a.txt", ("the day " * 900).encode("utf-16")),
    with_text("zip as text", ": not UTF-8 at byte", "a.txt", b"PK\x03\x04\x14\x00\xff\xfe" * 99),
    with_text(
        "latin-1 after a megabyte", ": not UTF-8 at byte 1320000", "a.txt", WORDS * 40_000 + b"\xe9"
    ),
    with_text(
        "a character cut short", ": not UTF-8 at byte 3300", "a.txt", WORDS * 100 + b"\xe2\x82"
    ),
    with_text(
        "gzip as text", ": expected text, found gzip; call it a.txt.gz", "a.txt", packed(WORDS)
    ),
    with_text(
        "gzip of gzip",
        ": expected text, found gzip; decompress it once",
        "a.txt.gz",
        packed(packed(WORDS)),
    ),
    with_text(
        "gzip cut short", ": damaged or not gzip", "a.txt.gz", packed(os.urandom(9000))[:-99]
    ),
    with_text("gzip cut in its header", ": damaged or not gzip", "a.txt.gz", packed(WORDS)[:5]),
    with_text("gzip without its sum", ": damaged or not gzip", "a.txt.gz", packed(WORDS)[:-8]),
    with_text(
        "gzip with another sum", ": damaged or not gzip", "a.txt.gz", packed(WORDS)[:-8] + bytes(8)
    ),
    with_text(
        "gzip with a flipped bit",
        ": damaged or not gzip",
        "a.jsonl.gz",
        packed(ROW * 99)[:30] + b"\xff" + packed(ROW * 99)[31:],
    ),
    with_text("plain text as gzip", ": damaged or not gzip", "a.txt.gz", WORDS),
    with_text("rubbish after gzip", ": damaged or not gzip", "a.txt.gz", packed(WORDS) + b"PK\x03"),
    with_text(
        "gzip bomb",
        ": expands to more than 100 times its size",
        "a.txt.gz",
        packed(bytes(20 * 2**20)),
    ),
    with_text(
        "gzip bomb of lines",
        ": expands to more than 100 times",
        "a.jsonl.gz",
        packed(b"\n" * (20 * 2**20)),
    ),
    with_text("dictionary without index", ": the dictionary's index a.index", "a.dict", WORDS),
    with_text("jsonl with a bad line", ", line 4: not JSON at column 2", "a.jsonl", rows(b"{")),
    with_text(
        "jsonl with a number", ", line 4: no string under 'text', found int", "a.jsonl", rows(b"3")
    ),
    with_text(
        "jsonl with a list", ", line 4: no string under 'text', found list", "a.jsonl", rows(b"[]")
    ),
    with_text(
        "jsonl of another field",
        ", line 4: no string under 'text', found body",
        "a.jsonl",
        rows(b'{"body": "x"}'),
    ),
    with_text(
        "jsonl with escapes as field",
        r", line 4: .*found \\x1b\[2J",
        "a.jsonl",
        rows(json.dumps({"\x1b[2J": "x"}).encode()),
    ),
    with_text(
        "jsonl with a number as text",
        ", line 4: no string under 'text'",
        "a.jsonl",
        rows(b'{"text": 3}'),
    ),
    with_text(
        "jsonl with half a surrogate",
        ", line 4: half of a surrogate pair",
        "a.jsonl",
        rows(b'{"text": "\\ud83d"}'),
    ),
    with_text("jsonl 100,000 deep", ", line 4: .*recursion", "a.jsonl", rows(b"[" * 100_000)),
    with_text(
        "jsonl with 5,000 digits", ", line 4: Exceeds the limit", "a.jsonl", rows(b"9" * 5000)
    ),
    with_text("jsonl in latin-1", ": not UTF-8 at byte 94", "a.jsonl", rows(b'{"text": "\xe9"}')),
    with_text(
        "JSON over several lines",
        ", line 1: not JSON",
        "a.jsonl",
        json.dumps({"text": "the day"}, indent=1).encode(),
    ),
    with_data("held-out file missing", "there is no file b.txt", heldout_text="b.txt"),
]
FAULTS += [
    Fault(
        "one short document",
        lambda place: place.data(text=str(place.write("a.txt", WORDS * 3))).command(),
        "the train text has 0 tokens, less than one context of 16; give more text",
    ),
    Fault(
        "one row of JSON",
        lambda place: place.data(text=str(place.write("a.jsonl", ROW))).command(),
        "less than one context of 16",
    ),
]
