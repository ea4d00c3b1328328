"""The long table: every result is a row; the other tables, figures and scalars are views of it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from saerepgeo.metrics.wrappers import Figure
from saerepgeo.report.files import read_rows
from saerepgeo.types import Estimate

RESULTS = "results.csv"
KEY = ("model", "hook", "sae", "concept", "space", "protocol", "metric")
"""What a row is about: a row with the same takes its place."""
COLUMNS = (*KEY, "value", "n", "low", "high", "null", "p", "reason", "seed")
ASIDES = ("/tested", "/beside_random")
"""Ends of the names of rows that say what p and null of another row are about."""
NAN = float("nan")


def result_row(about: Mapping[str, Any], name: str, figure: Figure) -> list[dict[str, Any]]:
    """Return the row of a figure and, where its null imitates a sample, that sample's value.

    The second row is named `{name}/tested`; p and null are about it.
    """
    estimate, interval, test, tested = figure
    low, high = (interval.low, interval.high) if interval else (NAN, NAN)
    null, p_value = (test.null_mean, test.p_value) if test else (NAN, NAN)
    found = (name, float(estimate), estimate.n_used, low, high, null, p_value, estimate.reason)
    row = {**about, **dict(zip(COLUMNS[6:-1], found, strict=True))}
    row = {column: row[column] for column in COLUMNS}
    if tested is None:
        return [row]
    return [row, row | {"metric": f"{name}/tested", "value": tested, "low": NAN, "high": NAN}]


def of_count(number: int) -> Figure:
    """Return a plain number of something as a figure."""
    return Figure(Estimate(torch.tensor(float(number)).double(), number, 0))


def group_rows(rows: Iterable[Any], *columns: str) -> dict[tuple[Any, ...], list[Any]]:
    """Return rows of any table by their values in some columns, in order."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a long table, numbers as numbers."""
    return typed_rows(read_rows(path))


def typed_rows(rows: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return rows of a long table read as text with numbers as numbers."""
    kinds = dict.fromkeys(("value", "low", "high", "null", "p"), float) | {"n": int, "seed": int}
    named: list[dict[str, Any]] = [{**row, "reason": row["reason"] or None} for row in rows]
    return [row | {name: kind(row[name]) for name, kind in kinds.items()} for row in named]
