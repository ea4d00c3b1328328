"""Dictionaries in the dictd format: `NAME.dict` or `NAME.dict.dz`, with `NAME.index` beside it."""

import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

from saerepgeo.data.text.compressed import opened

ABOUT = "00-database"
"""How the headwords of entries about the dictionary itself begin."""
_BASE64 = ascii_uppercase + ascii_lowercase + digits + "+/"


def raw_entries(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of every entry, in the order of the file.

    The entries about the dictionary itself (`00-database-…`) are left out.
    Raises ValueError on a missing or damaged index, one of another dictionary, a damaged `.dz`.
    """
    index = path.with_name(path.name.partition(".dict.")[0].removesuffix(".dict") + ".index")
    if not index.is_file():
        raise ValueError(f"{path}: the dictionary's index {index.name} is not beside it")
    with opened(path) as file:
        content = file.read()
    spans: dict[tuple[int, int], str] = {}
    for number, line in enumerate(index.read_bytes().splitlines(), start=1):
        # Headwords may hold anything but a tab; only the two numbers matter here.
        columns = line.decode("utf-8", "replace").split("\t")
        if len(columns) < 3 or not set(columns[1] + columns[2]) <= set(_BASE64):
            raise ValueError(f"{index}, line {number}: expected headword, offset, length")
        span = _base64_number(columns[1]), _base64_number(columns[2])
        # Other names of an entry about the dictionary do not make it one of the language.
        if not spans.get(span, "").startswith(ABOUT):
            spans[span] = columns[0]
    for (offset, length), headword in sorted(spans.items()):
        if offset + length > len(content):
            raise ValueError(f"{index}: {headword!r} lies beyond the end of {path.name}")
        if not headword.startswith(ABOUT):
            yield offset, content[offset : offset + length]


def _base64_number(number: str) -> int:
    return reduce(lambda value, digit: 64 * value + _BASE64.index(digit), number, 0)


def unwrap_entry(entry: str) -> str:
    """Return a dictionary entry with its column breaks undone and its cross-reference braces gone.

    >>> unwrap_entry("zymase\\n    n 1: a complex of {enzymes} that\\n         cause glycolysis\\n")
    'zymase\\nn 1: a complex of enzymes that cause glycolysis'
    """
    # A word broken at its own hyphen is whole again; "pre- and postwar" stays as it is.
    joined = re.sub(r"(?<=\w)-\n\s+(?!(?:and|or|to)\b)(?=\w)", "-", entry)
    text = re.sub(r"\{([^{}]*)\}", r"\1", joined)
    # The head, up to the first indented line, is a paragraph.
    text = re.sub(r"\A(.*\S.*\n(?:\S.*\n)*)(?=\s)", r"\1\n", text)
    paragraphs = map(str.split, re.split(r"\n\s*\n", text))
    return "\n".join(" ".join(words) for words in paragraphs if words)
