"""What names and texts a prompts file may hold, and how a message shows them."""

import re
from collections.abc import Iterable, Sequence

LONGEST_NAME = 100
"""Characters of a concept's name, which is part of file names."""
MOST_LISTED = 8
"""Names that a message lists."""


def file_part(name: str) -> str:
    """Return the name of a concept as it stands in file names.

    >>> file_part("U.S. fruit / nuts")
    'U.S._fruit_nuts'
    """
    return re.sub(r"[^\w.+-]+", "_", name)


def check_names(names: Iterable[str], place: str) -> None:
    """Raise ValueError unless every concept's name can be shown, and its files are its own."""
    taken: dict[str, str] = {}
    for name in names:
        where = f"{place}, concept {start_of(name)!r}"
        if not name.strip():
            raise ValueError(f"{where}: a concept without a name; give it one")
        if len(name) > LONGEST_NAME:
            most = f"a name of at most {LONGEST_NAME} characters"
            raise ValueError(f"{where}: expected {most}, got {len(name)}")
        check_characters(name, where)
        check_printable(name, where)
        other = taken.setdefault(file_part(name).casefold(), name)
        if other != name:
            raise ValueError(
                f"{place}: the concepts {other!r} and {name!r} would write the same files; "
                "rename one so that they differ in more than case, spaces and punctuation"
            )


def check_characters(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: half of a surrogate pair, which is no character") from error


def check_printable(text: str, where: str) -> None:
    """Raise ValueError on controls: of the terminal, of direction. Joiners belong to words."""
    if not text.replace("\u200c", "").replace("\u200d", "").isprintable():
        raise ValueError(
            f"{where} {start_of(text)!r}: has a character that cannot be shown; leave it out"
        )


def listed(names: Sequence[str]) -> str:
    """Return names for a message: no more of them, and no longer, than one line has room for."""
    shown = ", ".join(repr(start_of(name))[1:-1] for name in names[:MOST_LISTED])
    return shown + (f", … ({len(names):,} in all)" if len(names) > MOST_LISTED else "")


def start_of(text: str) -> str:
    """Return the beginning of a text for a message."""
    return text if len(text) <= 40 else f"{text[:39]}…"
