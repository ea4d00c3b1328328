"""What is wrong with a setting, in one line: its full name, what it must be, the nearest name."""

import ast
import difflib
import re
import sys
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from saerepgeo.shipped import config_file
from saerepgeo.yaml_files import load_yaml, read_yaml

_MARK = "\x1f"
"""Stands around a setting's name in the message of a parser inside another one."""
_NESTED = re.compile(f"{_MARK}(?P<name>.*?){_MARK}(?P<what>.*)")
_KEY = re.compile(r'^Parser key "(?P<name>[^"]+)"(?: element \d+)?:\s*(?P<rest>.*)', re.S)
_UNKNOWN = re.compile(r"(?:option|accept option) '(?P<name>[^']+)'", re.I)
_GROUP = re.compile(r"Group '(?P<name>[^']+)' does not")
_EXPECTED = re.compile(r"Expected (?:an? )?(?P<type>.+?)(?:\. Got value:\s*(?P<value>.*))?$")
_GIVEN = re.compile(r"^ *Given value: (.*)", re.M | re.S)
_CLASS = re.compile(r"given class_path '(?P<path>[^']+)':\s+(?P<what>.+)")
_REQUIRED = "the following arguments are required: "
_TYPES = {
    "<class 'int'>": "an integer",
    "<class 'float'>": "a number",
    "<class 'str'>": "text",
    "<class 'bool'>": "true or false",
    "<class 'NoneType'>": "null",
    "<class 'list'>": "a list",
    "<class 'dict'>": "settings of its own",
}
_yaml_load = get_loader("yaml")
set_loader("yaml", lambda text: load_yaml(text, _yaml_load), (yaml.YAMLError,))


class OneLineErrors(ArgumentParser):
    """A parser that refuses with a ValueError of one line, without usage and tips.

    Its configuration files are regular files of YAML that give each setting once; `case3` and the
    like are shipped ones.
    """

    def parse_args(  # type: ignore[override]
        self, args: Any = None, *rest: Any, **kwargs: Any
    ) -> Namespace:
        """Check configuration files before anything else opens them."""
        given = [str(arg) for arg in (sys.argv[1:] if args is None else args)]
        if not self.exit_on_error:  # an outer parser writes null, which it has read, as None
            given = [re.sub("=None$", "=null", arg) for arg in given]
        for index, (option, value) in enumerate(pairwise([*given, ""])):
            name, _, own = option.partition("=")
            path = own or value
            if name in ("--config", "-c") and path.lstrip()[:1] not in "{[":
                path = config_file(path)
                read_yaml(path)
                given[index if own else index + 1] = f"{name}={path}" if own else path
        return super().parse_args(given, *rest, **kwargs)

    def setting_names(self) -> list[str]:
        """Return the names of all settings, for the nearest to a misspelt one."""
        return [action.dest for action in self._actions]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the reason; in a parser inside another one, marked for the outer one to find."""
        parser = getattr(ex, "subcommand_parser", self)
        name, what = _reason(message, parser.setting_names())
        if not self.exit_on_error:
            super().error(f"{_MARK}{name}{_MARK}{what}", ex)
        raise ValueError(f"`{name}` {what}" if name else what) from ex


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return which of the names a misspelt one means, or None where none is near.

    >>> nearest("data.batch_sise", ["data.batch_size", "data.lm"])
    'data.batch_size'
    >>> nearest("max_steps", ["trainer.max_steps"])
    'trainer.max_steps'
    >>> nearest("dta.init_args.lm", ["data", "trainer.max_steps"])
    'data.init_args.lm'
    """
    names = list(names)
    head, _, rest = name.partition(".")
    last_parts = [known for known in names if known.split(".")[-1] == name]
    heads = {known.split(".")[0] for known in names}
    if last_parts and name not in names:
        return last_parts[0]
    if head not in heads and rest:
        found = difflib.get_close_matches(head, heads, 1)
        below = nearest(rest, _below(found[0], names)) if found else None
        return f"{found[0]}.{below or rest}" if found else None
    found = difflib.get_close_matches(name, names, 1)
    return found[0] if found else None


def unknown(name: str, names: Iterable[str]) -> tuple[str, str]:
    """Return a name that is no setting, and what to say of it."""
    near = nearest(name, names)
    return name, "is no setting" + (f": did you mean `{near}`?" if near else "")


def _below(head: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(f"{head}.") for name in names if name.startswith(f"{head}.")]


def _reason(message: str, names: list[str]) -> tuple[str, str]:
    """Return the setting that a message of jsonargparse's is about, and what is wrong with it."""
    key = _KEY.match(message)
    if key is not None:
        name, rest = key["name"], key["rest"]
        if (nested := _NESTED.search(rest)) is not None:
            return _inside(name, nested["name"]), nested["what"]
        return name, _of_value(rest)
    if (nested := _NESTED.search(message)) is not None:
        return nested["name"], nested["what"]
    if (found := _UNKNOWN.search(message)) is not None:
        group = _GROUP.match(message)
        return unknown(f"{group['name']}.{found['name']}" if group else found["name"], names)
    if (
        found := re.match(r"argument (?:-c/)?--(\S+): expected (?:at least )?one argument", message)
    ) is not None:
        return found[1], "needs a value"
    if message.startswith(_REQUIRED):
        return message.removeprefix(_REQUIRED).split(",")[0], "must be given"
    if message.startswith("unrecognized arguments: "):
        option = message.removeprefix("unrecognized arguments: ").split("=")[0].split(" ")[0]
        if not option.startswith("-"):
            return "", f"`{option}` stands alone: every setting is given as --NAME VALUE"
        return unknown(option.lstrip("-"), names)
    return "", " ".join(line.strip() for line in message.splitlines())


def _inside(outer: str, inner: str) -> str:
    """Return the full name of a setting of the class that the setting `outer` names."""
    is_beside = difflib.get_close_matches(inner.split(".")[0], ("init_args", "class_path"), 1)
    return f"{outer}.{inner}" if is_beside else f"{outer}.init_args.{inner}" if inner else outer


def _of_value(message: str) -> str:
    """Return what is wrong with a value."""
    if (problem := _CLASS.search(message)) is not None:
        what = problem["what"].strip()
        if "has no attribute 'keys'" in what:
            return f"must give the settings of {problem['path']} as `init_args`, NAME: VALUE"
        return f"names the class {problem['path']}, but {what}{_near_class(what)}"
    if (
        path := re.search(r"Import path (.*?) ?does not correspond to a (.*)", message)
    ) is not None:
        return f"must name a {path[2]}, got {path[1] or _given(message)}"
    if (base := re.search(r"Not a valid subclass of (\w+)", message)) is not None:
        return f"must name a {base[1]} by its `class_path`, got {_given(message)}"
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    expected = [found for line in lines if (found := _EXPECTED.match(line))]
    choices = [choice for each in expected for choice in _choices(each["type"])]
    wanted = [_in_words(each["type"]) for each in expected if not _choices(each["type"])]
    wanted = [f"one of {', '.join(dict.fromkeys(choices))}"] * bool(choices) + wanted
    wanted = list(dict.fromkeys(words for words in wanted if words))
    if not wanted:
        if lines[0].startswith("Unable to load config"):
            return f"must be settings of its own, NAME: VALUE, got {lines[0].split(' ', 4)[-1]}"
        return f"cannot be used: {lines[0]}"
    values = [each["value"] for each in expected if each["value"] is not None]
    value = values[0] or "''" if values else _given(message)
    near = difflib.get_close_matches(str(value), choices, 1)
    hint = f": did you mean {near[0]}?" if near else ""
    return f"must be {' or '.join(wanted)}, got {value}{hint}"


def _near_class(what: str) -> str:
    found = re.match(r"module '(.+)' has no attribute '(.+)'", what)
    names = dir(sys.modules[found[1]]) if found and found[1] in sys.modules else []
    near = difflib.get_close_matches(found[2], names, 1) if found else []
    return f": did you mean {near[0]}?" if near else ""


def _given(message: str) -> str:
    found = _GIVEN.search(message)
    given = found[1].strip() if found else "something else"
    return given if len(given) <= 240 else f"{given[:160]} … {given[-60:]}"


def _choices(expected: str) -> list[str]:
    found = re.fullmatch(r"typing\.Literal\[(.*)\]", expected)
    return [str(choice) for choice in ast.literal_eval(f"({found[1]},)")] if found else []


def _in_words(expected: str) -> str:
    """Return what a type is in plain words; nothing for a path, which any text may be."""
    if expected in _TYPES:
        return _TYPES[expected]
    if expected.startswith("dot import path"):
        return "a class"
    if (found := re.match(r"tuple with (\d+) elements", expected)) is not None:
        return f"{found[1]} values"
    if (found := re.match(r"<class '(?:.*\.)?(\w+)'>", expected)) is not None:
        return f"a {found[1]}"
    return "" if expected.startswith("path") else expected
