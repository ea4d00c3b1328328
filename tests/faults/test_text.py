"""Text that is right, whatever it says; any other ends in one line, within bounded memory."""

import gzip
import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.faults import Place
from faults.test_faults import run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from saerepgeo.data.contexts import open_contexts
from saerepgeo.data.text import open_text
from saerepgeo.data.text.text_files import DOCUMENT_BYTES
from saerepgeo.lm.tokenizer import LMTokenizer

FLAT = "the old red day of rain and snow " * 4000
TEXTS = {
    "without a line break": FLAT,
    "without blank lines": FLAT.replace("day ", "day\n"),
    "in Windows' lines": FLAT.replace("day ", "day\r\n"),
    "in one word": "snow" * 30_000,
    "special tokens": "<bos> <eos> <pad> the day <eos> " * 2000,
    "emoji": "👩‍🔬🏳️‍🌈👍🏽 the day 🎉 " * 1500,
    "right to left": "שלום עולם ‏ مرحبا بالعالم " * 1500,
    "nulls": "the\0day \0 " * 5000,
    "terminal escapes": "\x1b[2J\x1b]0;owned\x07 the day " * 3000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_gives_training_and_heldout_contexts(
    name: str, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    path, tokenizer = tmp_path / "a.txt", LMTokenizer(tiny_tokenizer)
    path.write_text(TEXTS[name], newline="")
    documents = list(open_text(path).documents())
    assert max(len(document.encode()) for document in documents) <= DOCUMENT_BYTES
    joined = "".join("".join(documents).split())
    assert joined == "".join(TEXTS[name].split())
    for split in ("train", "heldout"):
        contexts = open_contexts(open_text(path), tokenizer, 16, split)
        tokens = contexts.read(range(contexts.n_contexts))
        assert len(tokens) > 20
        assert tokenizer.is_real(tokens[:, 1:]).all(), "a special token spelled out is only text"


@pytest.mark.parametrize("name", ["special tokens", "emoji", "right to left"])
def test_a_run_over_it_ends_well(
    name: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.write("a.txt", TEXTS[name])
    place.data(text=str(path)).trainer(max_steps=1, limit_val_batches=1)
    assert run(place.command(), monkeypatch) == 0
    assert (tmp_path / "out" / "sae" / "cfg.json").is_file()


def test_a_bomb_is_refused_within_a_little_memory(tmp_path: Path) -> None:
    """A gigabyte of one line, in 1 MB: neither memory nor documents come of it."""
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(64):
            file.write(bytes(2**24))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="expands to more than 100 times its size"):
        next(open_text(path).documents())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10


def test_a_bomb_behind_text_and_in_a_dictionary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saerepgeo.data.text.compressed.FREE_BYTES", 2**16)
    noise = torch.randint(97, 122, (2**17,), generator=torch.Generator().manual_seed(0))
    start = bytes(noise.tolist())
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(start + b"a" * 2**25, mtime=0))
    documents = open_text(path).documents()
    assert next(documents)
    with pytest.raises(ValueError, match="expands to more than 100 times its size"):
        list(documents)
    (tmp_path / "b.index").write_text("a\tA\tB\n")
    (tmp_path / "b.dict.dz").write_bytes(gzip.compress(bytes(2**22), mtime=0))
    with pytest.raises(ValueError, match="expands to more than 100 times its size"):
        list(open_text(tmp_path / "b.dict.dz").documents())


def test_a_line_of_json_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saerepgeo.data.text.text_files.LINE_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x"}) + "\n" + json.dumps({"text": "x" * 100}))
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: longer than 100 bytes"):
        list(open_text(path).documents())


PIECES = st.sampled_from(
    [
        b"the day ",
        b"\n",
        b"\n\n",
        b"\r\n",
        b" ",
        b"x" * 1999,
        b"x" * 5000,
        "é".encode(),
        "🎉".encode() * 700,
        b"\xff",
        b"\0",
        b'{"text": "x"}\n',
        b"\x1f\x8b",
        b"\xef\xbb\xbf",
    ]
)


@given(st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=60), st.data())
@example(b"x" * 1999 + "é".encode() * 2, None)
@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, content: bytes, data: Any) -> None:
    name = (
        "a.txt"
        if data is None
        else data.draw(st.sampled_from(["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz"]))
    )
    path = tmp_path / name
    is_gzip = name.endswith(".gz") and (data is None or data.draw(st.booleans()))
    path.write_bytes(gzip.compress(content, mtime=0) if is_gzip else content)
    try:
        documents = list(open_text(path).documents())
    except ValueError as error:
        said = str(error)
        assert str(path) in said
        assert said.isprintable(), repr(said)
        return
    if name.startswith("a.txt"):
        assert "".join("".join(documents).split()) == "".join(
            (content if is_gzip or name == "a.txt" else b"").decode("utf-8-sig").split()
        )
        assert all(len(document.encode()) <= DOCUMENT_BYTES for document in documents)
