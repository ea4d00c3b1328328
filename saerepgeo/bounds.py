"""Bounds of settings: types that say them, and one check of a constructor's arguments."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Bound:
    """What a value `must_be`, in words, and whether it `holds`."""

    must_be: str
    holds: Callable[[Any], bool]


def _integer(low: int) -> Bound:
    return Bound(
        f"an integer ≥ {low}",
        lambda x: isinstance(x, Integral) and not isinstance(x, bool) and int(x) >= low,
    )


def _number(must_be: str, holds: Callable[[float], bool]) -> Bound:
    def is_in(x: Any) -> bool:
        is_real = isinstance(x, Real) and not isinstance(x, bool)
        return is_real and math.isfinite(x) and holds(float(x))

    return Bound(must_be, is_in)


Count = Annotated[int, _integer(0)]
PositiveInt = Annotated[int, _integer(1)]
Endless = Annotated[int, _integer(-1)]
"""-1: without an end."""
ContextSize = Annotated[int, _integer(2)]
"""BOS and a token."""
Share = Annotated[float, _number("in [0, 1]", lambda x: 0 <= x <= 1)]
AtMostHalf = Annotated[float, _number("in (0, 0.5]", lambda x: 0 < x <= 0.5)]
ShareBelowOne = Annotated[float, _number("in [0, 1)", lambda x: 0 <= x < 1)]
NotNegative = Annotated[float, _number("a finite number ≥ 0", lambda x: x >= 0)]
Positive = Annotated[float, _number("a finite number > 0", lambda x: x > 0)]
Text = Annotated[str, Bound("text, not empty", lambda x: isinstance(x, str) and bool(x.strip()))]


def check_settings(cls: Callable[..., Any], given: Mapping[str, Any], prefix: str = "") -> None:
    """Check the arguments `given` of a constructor against its annotations.

    Raises ValueError that names the first one out of its bounds, what it must be, and what came.

    >>> def f(n: PositiveInt, shares: list[Share] | None = None): ...
    >>> check_settings(f, {"n": 2, "shares": [0.5]})
    >>> check_settings(f, {"n": 0})
    Traceback (most recent call last):
    ValueError: `n` must be an integer ≥ 1, got 0
    >>> check_settings(f, {"shares": [2]}, prefix="data.")
    Traceback (most recent call last):
    ValueError: each of `data.shares` must be in [0, 1], got 2
    """
    called = cls.__init__ if "__init__" in vars(cls) else cls  # else the class itself is a list
    for name, hint in get_type_hints(called, include_extras=True).items():
        for whose, must_be, value in _broken(hint, given[name]) if name in given else ():
            raise ValueError(f"{whose}`{prefix}{name}` must be {must_be}, got {value!r}")


def _broken(hint: Any, value: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield for each bound that a value breaks: of each entry or not, what it must be, itself."""
    kind, args = get_origin(hint), get_args(hint)
    if kind is Annotated:
        bounds = [bound for bound in hint.__metadata__ if isinstance(bound, Bound)]
        yield from (("", bound.must_be, value) for bound in bounds if not bound.holds(value))
    elif kind is Literal:
        if value not in args:
            yield "", f"one of {', '.join(map(str, args))}", value
    elif kind in (Union, UnionType):
        fitting = [arg for arg in args if isinstance(value, list) == (get_origin(arg) is list)]
        found = [list(_broken(arg, value)) for arg in fitting if arg is not type(None)]
        if value is not None and found and all(found):
            yield from found[0]
    elif isinstance(value, list | tuple) and args and kind is not None:
        for entry in value:
            yield from (("each of ", text, found) for _, text, found in _broken(args[0], entry))
