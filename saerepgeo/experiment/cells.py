"""The cells of an experiment, and their figures as the rows of `finetune_results.csv` hold them."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saerepgeo.files import content_sum, read_text, write_json

POOLED = "pooled"
"""In place of a concept's name: the geometric mean of every figure over the concepts."""
TEXT = "text"
"""Split, and concept, of the rows on held-out background text."""
ITEMS = "heldout_items"
"""Split of the rows on items that training never saw."""
RECONSTRUCTION = ("mse", "fvu", "relative_reconstruction_bias", "l0")
"""Columns of every row: how well points are reconstructed, and from how many latents."""
SEPARABILITY = ("aedp", "aedp_raw", "relative_aedp", "fisher_ratio", "gromov_wasserstein")
"""Columns of every row of a concept: how far apart its items are."""

Row = Mapping[str, Any]
NAN = float("nan")


class Cell(NamedTuple):
    """One run: who is pushed how hard which way, from which seed, with which labels."""

    regularizer: str
    dose: float
    """Signed weight λ of the regularizer: above 0 more separability, below 0 less."""
    seed: int
    labels: str = "given"
    """`given`, or `shuffled` among the labeled points of each step."""

    @property
    def arm(self) -> "Cell":
        """What cells that differ in their seed alone share."""
        return self._replace(seed=0)


def write_result(path: str | Path, about: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write the result of a cell, with a checksum."""
    write_json(path, {"about": about, "rows": rows, "sum": content_sum([about, rows])})


def read_result(path: str | Path, cell: Cell) -> list[dict[str, Any]]:
    """Return the rows of the result of `cell`; ValueError, with the reason, unless it is whole.

    Whole: it is of this cell, holds one row on text and others on concepts, and each row has every
    column that a verdict may ask for, as a number; its checksum, if it has one, is right.
    """
    try:
        content = json.loads(read_text(path))
        about, rows = content["about"], content["rows"]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from error
    except (KeyError, TypeError) as error:
        raise ValueError("not of the form {about: …, rows: […]}") from error
    if "sum" in content and content["sum"] != content_sum([about, rows]):  # files once had none
        raise ValueError("its `sum` is that of another content")
    if about != cell._asdict():
        raise ValueError(f"of another cell, {about}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("its `rows` are no list of rows")
    on_text = [row.get("concept") for row in rows if row.get("split") == TEXT]
    if on_text != [TEXT] or len(rows) == 1:
        raise ValueError(
            f"expected one row on text and others on concepts, got {len(on_text)} and "
            f"{len(rows) - len(on_text)}"
        )
    for row in rows:
        names = RECONSTRUCTION if row["split"] == TEXT else RECONSTRUCTION + SEPARABILITY
        bad = [n for n in names if type(row.get(n)) not in (int, float)]
        bad += [n for n, value in about.items() if row.get(n) != value]
        if bad or not isinstance(row.get("concept"), str):
            raise ValueError(f"a row has no right `{'`, `'.join(bad) or 'concept'}`")
    return rows


def cell_figures(rows: Iterable[Row], column: str, split: str) -> dict[Cell, dict[str, float]]:
    """Return a column of a split by cell and concept; NaN where it is empty.

    Raises ValueError for one cell twice.
    """
    found: dict[Cell, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["split"] != split or row["concept"] == POOLED:
            continue
        cell = Cell(row["regularizer"], float(row["dose"]), int(row["seed"]), row["labels"])
        concept, value = row["concept"], row.get(column)
        if concept in found[cell]:
            raise ValueError(
                f"expected one row a cell, split and concept, got two of {(*cell, split, concept)}"
            )
        found[cell][concept] = NAN if value in ("", None) else float(value)
    return found


def figure_pairs(
    rows: Sequence[Row], separability: str, error: str, error_split: str = ITEMS
) -> dict[Cell, dict[str, tuple[float, float]]]:
    """Return (separability of held-out items, error) of each cell by concept, pooled first.

    Pairs with a figure that is not positive and finite are left out. `POOLED` are the geometric
    means, only where all concepts have both: a mean over other concepts would be no match of its
    control. Text, which has no concepts, gives all of them one error.
    """
    x = cell_figures(rows, separability, ITEMS)
    y = cell_figures(rows, error, error_split)
    concepts = {concept for of_cell in x.values() for concept in of_cell}
    found = {}
    for cell in sorted(x):
        errors = y.get(cell, {})
        pairs = {c: (x[cell][c], errors.get(c, errors.get(TEXT, NAN))) for c in sorted(x[cell])}
        pairs = {c: pair for c, pair in pairs.items() if all(map(is_positive, pair))}
        if pairs and len(pairs) == len(concepts):
            mean_x, mean_y = map(statistics.geometric_mean, zip(*pairs.values(), strict=True))
            pairs = {POOLED: (mean_x, mean_y)} | pairs
        found[cell] = pairs
    return found


def is_positive(value: float) -> bool:
    """Return whether a figure has a logarithm."""
    return math.isfinite(value) and value > 0
