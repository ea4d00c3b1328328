"""Documents of text files: paragraphs, JSON lines, dictionaries; plain or compressed."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from io import BufferedReader
from pathlib import Path

from saerepgeo.data.text.compressed import COMPRESSED, opened
from saerepgeo.data.text.dictd import raw_entries, unwrap_entry

FIELD = "text"
"""Where a row of JSON lines or of a data set has its text."""
DOCUMENT_BYTES = 2000
"""Paragraphs of a `.txt` file are joined into documents of at most this many bytes."""
LINE_BYTES = 64 * 2**20
"""A line of JSON has no more bytes than this."""
HASHED_BYTES = 64 * 2**20
"""Files up to this size are fingerprinted by content, larger ones by size and time of change."""
READER_VERSION = b"2"
"""Part of every fingerprint: to be changed with any change of what `documents` yields."""


class FileText:
    """Documents of files, one file after the other."""

    is_finite = True

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        for path in self.paths:
            if _kind(path) not in _READERS:
                known = ", ".join(_READERS)
                raise ValueError(f"{path}: expected a file {known}, or one of these + .gz or .dz")

    def documents(self) -> Iterator[str]:
        """Yield the documents."""
        is_empty = True
        for path in self.paths:
            for document in _READERS[_kind(path)](path):
                is_empty = False
                yield document
        if is_empty:
            raise ValueError(f"no text in {', '.join(map(str, self.paths))}")

    @property
    def fingerprint(self) -> str:
        """Contents, not names: the same text elsewhere has the same fingerprint."""
        digest = hashlib.sha256(READER_VERSION + f"{FIELD} strict".encode())
        for path in self.paths:
            stat = path.stat()
            by_content = stat.st_size <= HASHED_BYTES
            key = path.read_bytes() if by_content else f"{stat.st_size} {stat.st_mtime_ns}".encode()
            digest.update(_kind(path).encode() + hashlib.sha256(key).digest())
        return digest.hexdigest()


def _kind(path: Path) -> str:
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix


def _dictionary(path: Path) -> Iterator[str]:
    for offset, entry in raw_entries(path):
        yield unwrap_entry(_decoded(entry, offset, path))


def _json_lines(path: Path) -> Iterator[str]:
    offset = 0
    with opened(path) as file:
        for number, line in enumerate(_lines(file, LINE_BYTES), start=1):
            if len(line) == LINE_BYTES:
                raise ValueError(f"{path}, line {number}: longer than {LINE_BYTES:,} bytes")
            if line.strip():
                yield _field(_decoded(line, offset, path), f"{path}, line {number}")
            offset += len(line)


def _field(line: str, place: str) -> str:
    try:
        row = json.loads(line.rstrip())
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, 10,000 brackets deep
        raise ValueError(f"{place}: {error}") from error
    text = row.get(FIELD) if isinstance(row, dict) else None
    if not isinstance(text, str):
        found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{place}: no string under {FIELD!r}, found {repr(found[:200])[1:-1]}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: half of a surrogate pair, which is no character") from error
    return text


def _joined_paragraphs(path: Path) -> Iterator[str]:
    """Join paragraphs until the next one would make the document longer than allowed."""
    held, start = b"", 0
    with opened(path) as file:
        for offset, paragraph in _paragraphs(_lines(file, 16 * DOCUMENT_BYTES)):
            if held and len(held) + len(paragraph) > DOCUMENT_BYTES:
                yield _tidied(_decoded(held, start, path))
                held, start = b"", offset
            held += paragraph
        if held:
            yield _tidied(_decoded(held, start, path))


def _paragraphs(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Split before each line that follows a blank one, and what is longer than a document.

    Blank lines stay, for the offsets.
    """
    held, start, after_blank = bytearray(), 0, False
    for line in lines:
        is_blank = not line.strip()
        if after_blank and not is_blank and held.strip():
            yield start, bytes(held)
            held, start = bytearray(), start + len(held)
        held += line
        after_blank = is_blank
        while not is_blank and (size := _document_size(held)):
            yield start, bytes(held[:size])
            held, start = held[size:], start + size
    if held.strip():
        yield start, bytes(held)


def _document_size(held: bytearray) -> int:
    """Return where to cut what is longer than a document: after a line, a word or a character.

    0 where it is no longer.
    """
    first = len(held) - len(held.lstrip())
    end = first + DOCUMENT_BYTES
    if len(held.rstrip()) <= end:
        return 0
    for mark in (b"\n", b" "):
        if (found := held.rfind(mark, first, end)) > first:
            return found + 1
    before = (size for size in range(end, end - 4, -1) if held[size] & 0xC0 != 0x80)
    return next(before, end)  # before the first byte of a character, where it is UTF-8


def _lines(file: BufferedReader, n_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a file, long ones in pieces of `n_bytes`."""
    return iter(partial(file.readline, n_bytes), b"")


def _tidied(text: str) -> str:
    return re.sub(r"\n\s*\n", "\n\n", text.replace("\r\n", "\n")).strip()


def _decoded(content: bytes, offset: int, path: Path) -> str:
    """Return what begins at byte `offset` of the uncompressed file as text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        place = offset + error.start
        raise ValueError(f"{path}: not UTF-8 at byte {place}; save it as UTF-8") from error
    return text.removeprefix("\ufeff") if offset == 0 else text


_READERS = {".txt": _joined_paragraphs, ".jsonl": _json_lines, ".dict": _dictionary}
