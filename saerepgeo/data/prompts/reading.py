"""A prompts file as the table that it holds, or one line that says why it holds none."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from saerepgeo.data.prompts.names import start_of


def read_table(path: str | Path | None, place: str) -> dict[str, Any]:
    """Return what a prompts file holds, the shipped one by default; messages call it `place`.

    Raises ValueError: not a file, not UTF-8, not JSON, no object, a key twice.
    """
    try:
        raw = _shipped() if path is None else _read(Path(path))
    except OSError as error:
        raise ValueError(f"cannot read the prompts file {path}: {error.strerror}") from error
    table = _parse(raw, place)
    expect(isinstance(table, dict), f"{place}: expected {{concept: [prompt, …]}}", table)
    return dict(table)


def _read(path: Path) -> bytes:
    if "\0" in str(path):
        raise ValueError(f"the prompts file {str(path)!r} has a null in its name")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"the prompts file {path} is a pipe or a device; expected a regular file")
    return path.read_bytes()


def _shipped() -> bytes:
    return (resources.files("saerepgeo.data.prompts") / "concept_prompts.json").read_bytes()


def expect(is_right: bool, message: str, value: Any) -> None:
    """Raise ValueError with the JSON type of `value` where it is not right."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    if not is_right:
        found = names.get(type(value), "null" if value is None else "a number")
        raise ValueError(f"{message}, got {found}")


def _parse(raw: bytes, place: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{place}: not JSON at {where}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # 10,000 brackets deep
        raise ValueError(f"{place}: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {start_of(key)!r} stands twice in one object")
        table[key] = value
    return table
