"""YAML files of settings: read whole, each setting once, nothing that grows beyond measure."""

import difflib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from saerepgeo.shipped import config_name, config_names

LARGEST = 1_000_000
"""Bytes of a file."""
MOST = 100_000
"""Entries, once aliases are written out."""
DEEPEST = 50
_KINDS = {list: "a list", str: "text", type(None): "nothing", dict: "nothing"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the settings that a file holds.

    Raises ValueError in one line, with the file and the place in it, for what is not a regular
    file, too large, no UTF-8, no YAML, no mapping, or gives a setting twice.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ValueError("it is no regular file")
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST:,} bytes")
        text = content.decode("utf-8")
        settings = load_yaml(text)
        if not isinstance(settings, dict) or not settings:
            raise ValueError(f"it holds {_KINDS.get(type(settings), 'one value')}")
        for name in settings:
            if not isinstance(name, str):
                raise ValueError(f"a setting's name must be text, got {name}")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be a YAML file of settings, but byte {error.start} is no UTF-8"
        ) from None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} must be a YAML file of settings, but {error}") from None
    except OSError as error:
        hint = _hint(Path(path)) if isinstance(error, FileNotFoundError) else ""
        raise ValueError(f"{path} cannot be read: {error.strerror}{hint}") from None
    return settings


def _hint(path: Path) -> str:
    """Say which file beside it, else which shipped configuration, a misspelt one may mean."""
    beside = [found.name for found in path.parent.glob("*")] if path.parent.is_dir() else []
    shipped = config_names()
    near = [str(path.parent / name) for name in difflib.get_close_matches(path.name, beside, 1)]
    near += difflib.get_close_matches(config_name(str(path)), shipped, 1)
    meant = f": did you mean {near[0]}?" if near else ";"
    return f"{meant} Give the path of a YAML file, or a shipped one of {', '.join(shipped)}"


def load_yaml(text: str, load: Callable[[str], Any] | None = None) -> Any:
    """Return what a text holds, by `load` where YAML is read in another way than PyYAML's safe one.

    Raises `yaml.YAMLError` in one line.
    """
    try:
        _check_depth(text)
        _check_nodes(yaml.compose(text, _LOADER))
        return yaml.load(text, _LOADER) if load is None else load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise yaml.YAMLError(f"{where}{error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise yaml.YAMLError(
            f"character {error.position} cannot stand in YAML ({error.reason})"
        ) from None


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(
                f"line {event.start_mark.line + 1} is nested more than {DEEPEST} deep"
            )


def _check_nodes(root: Any) -> None:
    for number, node in enumerate(_nodes(root)):
        if number > MOST:
            raise yaml.YAMLError(f"its aliases, written out, make more than {MOST:,} entries")
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)


def _nodes(root: Any) -> Iterator[Any]:
    """Yield every node, as often as aliases name it."""
    waiting = [] if root is None else [root]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _check_keys(node: Any) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.YAMLError(f"line {line}: a setting's name must be text")
        if name in lines and name != "<<":
            raise yaml.YAMLError(f"`{name}` is given twice, in lines {lines[name]} and {line}")
        lines[name] = line
