"""The long table: every result is a row; the other tables, figures and scalars are views of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from saerepgeo.metrics.wrappers import Figure
from saerepgeo.report.files import read_rows
from saerepgeo.types import Estimate

RESULTS = "results.csv"
COLUMNS = (
    "model",
    "hook",
    "sae",
    "concept",
    "space",
    "protocol",
    "metric",
    "value",
    "n",
    "low",
    "high",
    "null",
    "p",
    "reason",
    "seed",
)
KEY = COLUMNS[:7]
"""What a row is about: a row with the same takes its place."""
NAN = float("nan")


def result_row(about: Mapping[str, Any], name: str, figure: Figure) -> list[dict[str, Any]]:
    """Return the row of a figure; where its null imitates a sample, a row of that sample too.

    The second row, `{name}/tested`, holds the value of the sample that p and null are about.
    """
    estimate, interval, test, tested = figure
    row = dict(about) | {
        "metric": name,
        "value": float(estimate),
        "n": estimate.n_used,
        "low": interval.low if interval else NAN,
        "high": interval.high if interval else NAN,
        "null": test.null_mean if test else NAN,
        "p": test.p_value if test else NAN,
        "reason": estimate.reason,
    }
    rows = [{column: row[column] for column in COLUMNS}]
    if tested is not None:
        of_sample = {"metric": f"{name}/tested", "value": tested, "low": NAN, "high": NAN}
        rows.append(rows[0] | of_sample)
    return rows


def of_count(number: int) -> Figure:
    """Return a plain number of something as a figure."""
    return Figure(Estimate(torch.tensor(float(number)).double(), number, 0))


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a long table, numbers as numbers."""
    numbers = ("value", "low", "high", "null", "p")
    return [
        row
        | {name: float(row[name]) for name in numbers}
        | {name: int(row[name]) for name in ("n", "seed")}
        | {"reason": row["reason"] or None}
        for row in read_rows(path)
    ]
