"""Numbers and findings in words: hedged where the interval, or the null, does not decide."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
ALPHA = 0.05


def number(value: float, sign: str = "") -> str:
    """Return a number with three digits, as a reader writes it.

    >>> number(0.02512), number(2079.4), number(11.0), number(0.5, "+"), number(float("nan"))
    ('0.0251', '2,079', '11', '+0.5', 'undefined')
    """
    if not math.isfinite(value):
        return "undefined"
    text = f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.3g}"
    return text if "e" not in text else f"{value:{sign}.1e}"


def interval(low: float, high: float, sign: str = "") -> str:
    """Return ` [low, high]`, or nothing where there is no interval."""
    known = math.isfinite(low) and math.isfinite(high)
    return f" [{number(low, sign)}, {number(high, sign)}]" if known else ""


def figure(row: Row | None, name: str = "value") -> str:
    """Return a figure of a row of the long table with its interval; why, where it has none."""
    if row is None:
        return "not computed"
    if row.get("reason"):
        return f"undefined ({row['reason']})"
    return number(row[name]) + interval(row["low"], row["high"])


def beside_chance(row: Row) -> str:
    """Return what chance gives of a row, and p; nothing where no null was drawn."""
    if not math.isfinite(row["p"]):
        return ""
    p = f"p = {number(row['p'])}"
    return f"chance gives {number(row['null'])}, {p}" if math.isfinite(row["null"]) else p


def change(before: Row | None, after: Row | None) -> str | None:
    """Return `rises`, `falls`, or None where the two intervals do not lie apart.

    Stricter than a test of the difference: intervals that overlap decide nothing.
    """
    if before is None or after is None:
        return None
    if before["high"] < after["low"]:
        return "rises"
    return "falls" if after["high"] < before["low"] else None


def moved(before: Row | None, after: Row | None, what: str) -> str:
    """Return a sentence on a figure before and after: a change only where intervals lie apart."""
    pair = f"{figure(before)} in the residuals, {figure(after)} in the latents"
    if before is None or after is None or before.get("reason") or after.get("reason"):
        return f"{what}: {pair}: undecided."
    word = change(before, after)
    if word is not None:
        return f"{what} {word}: {pair}."
    if not all(math.isfinite(row[end]) for row in (before, after) for end in ("low", "high")):
        return f"{what}: {pair}; without intervals, undecided."
    return f"{what}: {pair}: the intervals overlap, so no change can be told."


def joined(parts: Sequence[str], at_most: int = 4) -> str:
    """Return parts of a sentence; those after the first few are counted.

    >>> joined(["a", "b", "c"]), joined(["a", "b", "c"], 2)
    ('a, b and c', 'a, b and 1 more')
    """
    shown = list(parts[:at_most])
    if len(parts) > at_most:
        shown.append(f"{len(parts) - at_most} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def listed(parts: Sequence[str], at_most: int = 3) -> str:
    """Return parts that hold commas themselves; those after the first few are counted.

    >>> listed(["a, b", "c", "d"], 2)
    'a, b; c; and 1 more'
    """
    more = [f"and {len(parts) - at_most} more"] if len(parts) > at_most else []
    return "; ".join([*parts[:at_most], *more])
