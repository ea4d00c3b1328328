"""Background text: the shipped sample, text files, dictionaries, Hugging Face data sets.

`open_text(source)` gives a `TextSource`, whose `documents(start)` are strings in a fixed order.
"""

import gzip
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from glob import glob, has_magic
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, cast

from saerepgeo.data.dictd import GZIP_ERRORS, raw_entries, unwrap_entry

__all__ = ["FileText", "HubText", "TextSource", "open_text"]

DOCUMENT_BYTES = 2000
"""Paragraphs of a `.txt` file are joined into documents of at most this many bytes."""
HASHED_BYTES = 64 * 2**20
"""Files up to this size are fingerprinted by content, larger ones by size and time of change."""
READER_VERSION = b"1"
"""Part of every fingerprint: to be changed with any change of what `documents` yields."""

SUFFIXES = (".txt", ".jsonl", ".dict")
COMPRESSED = (".gz", ".dz")


class TextSource(ABC):
    """Documents in a fixed order; document i is the same string whenever it is asked for."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digest that changes when the documents do; a part of cache keys."""

    @property
    @abstractmethod
    def is_finite(self) -> bool:
        """Whether the end is known to be near enough for going round again and again."""

    @abstractmethod
    def documents(self, start: int = 0) -> Iterator[str]:
        """Yield the documents from number `start` on; none where there are not that many.

        A document is empty where the file or data set holds an empty one, so that numbers hold.
        """


def open_text(
    source: str | Path | Sequence[str | Path] = "sample",
    field: str = "text",
    errors: str = "strict",
) -> TextSource:
    """Open background text.

    `source` is one of

    - `"sample"`: the shipped sample, definitions of WordNet 3.0;
    - a path or glob, or a list of them: `.txt`, `.jsonl` (one object a line, its text in `field`),
      `.dict` (the dictd format, its `.index` beside it), each also compressed as `.gz` or `.dz`.
      Matches of a glob are read in sorted order. In `.txt`, paragraphs (set apart by blank lines)
      are joined into documents of up to 2,000 bytes; a longer paragraph is a document of its own;
    - `"hf:NAME[:CONFIG[:SPLIT]]"`: a Hugging Face data set or a local folder of one, streamed, its
      text in column `field`; the split is `train` unless named (`"hf:NAME::validation"`).

    `errors` is what becomes of bytes in a file that are not UTF-8: `"strict"` raises, `"replace"`
    reads each as U+FFFD, `"ignore"` leaves them out.

    Raises:
        ValueError: A file that is missing or of another kind; while reading, with file and place:
            text that is not UTF-8, a line that is not JSON or has no `field`, no text at all.

    >>> next(open_text("sample").documents(start=3)) == list(open_text("sample").documents())[3]
    True
    """
    if isinstance(source, str):
        if source == "sample":
            sample = resources.files("saerepgeo.data") / "text_sample" / "wordnet.jsonl.gz"
            return FileText([Path(str(sample))])
        if source.startswith("hf:"):
            return HubText(source.removeprefix("hf:"), field)
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise ValueError("`source` is an empty list; expected at least one file")
    return FileText([path for entry in sources for path in _matches(str(entry))], field, errors)


def _matches(entry: str) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_dir():
        raise ValueError(f"{entry} is a folder; name its files, for example {path / '*.jsonl.gz'}")
    if path.is_file():
        return [path]
    if has_magic(entry):
        matches = [Path(name) for name in sorted(glob(str(path), recursive=True))]
        files = [match for match in matches if match.is_file()]
        if not files:
            raise ValueError(f"no file matches {entry}")
        return files
    hint = '; `source` is "sample", "hf:NAME" or a file' if not path.suffix else ""
    raise ValueError(f"there is no file {entry}{hint}")


class _Raw(NamedTuple):
    """A document not yet decoded, so that skipping costs no parsing, and where it stands."""

    content: bytes
    offset: int
    """First byte in the (uncompressed) file."""
    line: int
    """Line number from 1; 0 where lines do not count."""


class FileText(TextSource):
    """Documents of files, one file after the other."""

    is_finite = True

    def __init__(self, paths: Sequence[Path], field: str = "text", errors: str = "strict") -> None:
        self.paths = tuple(paths)
        self.field = field
        self.errors = errors
        for path in self.paths:
            if _kind(path) not in SUFFIXES:
                known = ", ".join(SUFFIXES)
                raise ValueError(f"{path}: expected a file {known}, or one of these + .gz or .dz")

    def documents(self, start: int = 0) -> Iterator[str]:
        n_seen = 0
        for path in self.paths:
            for raw in _raw_documents(path):
                n_seen += 1
                if n_seen > start:
                    yield self._text(raw, path)
        if n_seen == 0:
            raise ValueError(f"no text in {', '.join(map(str, self.paths))}")

    def _text(self, raw: _Raw, path: Path) -> str:
        text = _decoded(raw, path, self.errors)
        if _kind(path) == ".dict":
            return unwrap_entry(text)
        if _kind(path) == ".txt":
            return re.sub(r"\n\s*\n", "\n\n", text.replace("\r\n", "\n")).strip()
        return self._field(text, f"{path}, line {raw.line}")

    def _field(self, line: str, place: str) -> str:
        try:
            row = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: not JSON at column {error.colno}: {error.msg}") from error
        if not isinstance(row, dict) or not isinstance(row.get(self.field), str):
            found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{place}: no string under {self.field!r} (`field`), found {found}")
        try:
            row[self.field].encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{place}: half of a surrogate pair, which is no character") from error
        return cast(str, row[self.field])

    @property
    def fingerprint(self) -> str:
        """Contents, not names: the same text elsewhere has the same fingerprint."""
        digest = hashlib.sha256(READER_VERSION + f"{self.field} {self.errors}".encode())
        for path in self.paths:
            stat = path.stat()
            by_content = stat.st_size <= HASHED_BYTES
            key = path.read_bytes() if by_content else f"{stat.st_size} {stat.st_mtime_ns}".encode()
            digest.update(_kind(path).encode() + hashlib.sha256(key).digest())
        return digest.hexdigest()


class HubText(TextSource):
    """One column of a streamed Hugging Face data set, `NAME[:CONFIG[:SPLIT]]`."""

    is_finite = False

    def __init__(self, name: str, field: str = "text") -> None:
        self.name, *options = name.split(":")
        if not self.name or len(options) > 2:
            raise ValueError(f'expected "hf:NAME[:CONFIG[:SPLIT]]", got "hf:{name}"')
        self.config, self.split = [*options, "", ""][:2]
        self.split = self.split or "train"
        self.field = field

    def documents(self, start: int = 0) -> Iterator[str]:
        row: dict[str, Any] | None = None
        for row in self._rows(start):
            if not isinstance(row.get(self.field), str):
                found = ", ".join(row)
                raise ValueError(
                    f"hf:{self.name}: no string in column {self.field!r} (`field`), found {found}"
                )
            yield row[self.field]
        if row is None and start == 0:
            raise ValueError(f"no text in hf:{self.name}, split {self.split!r}")

    def _rows(self, start: int) -> Iterator[dict[str, Any]]:
        try:
            rows = self._builder.as_streaming_dataset(split=self.split)
            yield from rows.skip(start) if start else rows
        except (OSError, ValueError) as error:
            raise ValueError(f"hf:{self.name}: {_first_line(error)}") from error
        except StopIteration:  # out of `datasets`, from a file without a row
            return

    @property
    def fingerprint(self) -> str:
        """The builder's hash covers the revision of the data set, or the files of a local one."""
        builder = self._builder
        key = [self.name, builder.config_id, str(builder.hash), self.split, self.field]
        return hashlib.sha256(READER_VERSION + json.dumps(key).encode()).hexdigest()

    @cached_property
    def _builder(self) -> Any:
        from datasets import load_dataset_builder

        try:
            return load_dataset_builder(self.name, self.config or None)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"cannot open the data set hf:{self.name}: {_first_line(error)}"
            ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _decoded(raw: _Raw, path: Path, errors: str) -> str:
    try:
        text = raw.content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        offset = raw.offset + error.start
        raise ValueError(
            f"{path}: not UTF-8 at byte {offset}; save it as UTF-8, or set `errors` to 'replace'"
        ) from error
    return text.removeprefix("\ufeff") if raw.offset == 0 else text


def _kind(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix in COMPRESSED else path
    return plain.suffix


def _raw_documents(path: Path) -> Iterator[_Raw]:
    if _kind(path) == ".dict":
        yield from (_Raw(content, offset, 0) for offset, content in raw_entries(path))
        return
    opener: Any = gzip.open if path.suffix in COMPRESSED else open
    try:
        with opener(path, "rb") as lines:
            yield from (_raw_lines(lines) if _kind(path) == ".jsonl" else _raw_paragraphs(lines))
    except GZIP_ERRORS as error:
        raise ValueError(f"{path}: damaged or not gzip: {error}") from error


def _raw_lines(lines: Iterator[bytes]) -> Iterator[_Raw]:
    offset = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _Raw(line, offset, number)
        offset += len(line)


def _raw_paragraphs(lines: Iterator[bytes]) -> Iterator[_Raw]:
    """Join paragraphs until the next one would make the document longer than allowed."""
    held: list[_Raw] = []
    for paragraph in _paragraphs(lines):
        size = paragraph.offset + len(paragraph.content) - (held or [paragraph])[0].offset
        if held and size > DOCUMENT_BYTES:
            yield _Raw(b"".join(part.content for part in held), held[0].offset, 0)
            held = []
        held.append(paragraph)
    if held:
        yield _Raw(b"".join(part.content for part in held), held[0].offset, 0)


def _paragraphs(lines: Iterator[bytes]) -> Iterator[_Raw]:
    """Split before each line that follows a blank one; blank lines stay, for the offsets."""
    held: list[bytes] = []
    start = offset = 0
    has_text = after_blank = False
    for line in lines:
        is_blank = not line.strip()
        if has_text and after_blank and not is_blank:
            yield _Raw(b"".join(held), start, 0)
            held, start, has_text = [], offset, False
        held.append(line)
        offset += len(line)
        has_text, after_blank = has_text or not is_blank, is_blank
    if has_text:
        yield _Raw(b"".join(held), start, 0)
