"""From the rows of an experiment to worded verdicts, corrected for their number."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from saerepgeo.experiment.verdict.dose_response import (
    DoseResponse,
    Run,
    dose_response,
    holm,
    paired_difference,
)

__all__ = ["POOLED", "Verdict", "control_contrasts", "judge"]

POOLED = "pooled"
"""In place of a concept's name: the geometric mean of every figure over the concepts."""
TEXT = "text"
"""Split of the rows on held-out background text."""

Row = Mapping[str, Any]
Key = tuple[str, str]
Cell = tuple[str, int, float]
"""regularizer, seed, dose"""
Arm = tuple[str, str, str, str, str, float]
"""split, concept, figure, regularizer, labels, dose"""


class Verdict(NamedTuple):
    """One regularizer, one concept (or `POOLED`): what its dose–response says."""

    regularizer: str
    concept: str
    separability: str
    """Column that measures separability."""
    error: str
    """Column that measures the error, and the split it was measured on."""
    response: DoseResponse
    p_adjusted: float
    """By Holm, within the family of the pooled verdicts or that of all single concepts."""
    verdict: str
    """`effect: lowers`, `effect: raises`, `no evidence`, or `undecided`."""
    sentence: str

    def as_row(self) -> dict[str, Any]:
        """Return the verdict as a flat row for a table."""
        r = self.response
        return {
            "regularizer": self.regularizer,
            "concept": self.concept,
            "separability": self.separability,
            "error": self.error,
            "n_seeds": r.n_seeds,
            "n_seeds_dropped": r.n_dropped,
            "slope": r.slope,
            "slope_low": r.interval.low,
            "slope_high": r.interval.high,
            "level": r.interval.level,
            "p_value": r.p_value,
            "p_adjusted": self.p_adjusted,
            "curvature": r.curvature,
            "separability_moved": r.moved,
            "moved_low": r.moved_interval.low,
            "moved_high": r.moved_interval.high,
            "pearson": r.pearson,
            "spearman": r.spearman,
            "verdict": self.verdict,
            "sentence": self.sentence,
        }


def judge(
    rows: Iterable[Row],
    separability: str = "relative_aedp",
    error: str = "mse",
    error_split: str = "heldout_items",
    alpha: float = 0.05,
) -> list[Verdict]:
    """Return for every regularizer the pooled verdict and one for each concept.

    An effect is one whose Holm-adjusted p-value is at most `alpha` and whose interval (of level
    1 − alpha) leaves out 0, at doses that did move separability. The pooled verdicts of all
    regularizers are one family of tests, the verdicts of single concepts another. "No evidence"
    is said with the interval, for it is the interval that says what effects remain possible.

    Args:
        rows: as in `finetune_results.csv`: regularizer, dose, seed, labels (`given`, `shuffled`),
            split, concept, and the figures. Rows of shuffled labels are controls of another kind
            (`control_contrasts`) and left out; so are concepts without a finite positive figure.
        separability: a column, of the split `heldout_items`; scale-free ones compare over doses.
        error: a column.
        error_split: `heldout_items`, `heldout_prompts`, or `text` (one error for all concepts).

    Raises:
        ValueError: no rows of the splits named; one cell twice.
    """
    runs = collect_runs(rows, separability, error, error_split)
    if not runs:
        raise ValueError(
            f"no rows hold `{separability}` of heldout_items and `{error}` of {error_split}; "
            "has any run of the experiment finished?"
        )
    responses = {key: dose_response(of_key, 1 - alpha) for key, of_key in runs.items()}
    adjusted: dict[Key, float] = {}
    for is_pooled in (True, False):
        family = [key for key in responses if (key[1] == POOLED) == is_pooled]
        corrected = holm([responses[key].p_value for key in family])
        adjusted |= dict(zip(family, corrected, strict=True))
    verdicts = []
    for key, response in responses.items():
        word, sentence = _worded(key, response, adjusted[key], alpha)
        column = f"{error}/{error_split}"
        verdicts.append(
            Verdict(*key, separability, column, response, adjusted[key], word, sentence)
        )
    return verdicts


def collect_runs(
    rows: Iterable[Row],
    separability: str,
    error: str,
    error_split: str,
    labels: str = "given",
) -> dict[Key, list[Run]]:
    """Return the runs of each (regularizer, concept); pooled first, geometric means over concepts.

    A run with dose 0 is the control of every regularizer. Only runs in which all concepts have
    both figures are pooled: a mean over other concepts would be no match of its control.
    """
    x, y = _figures(rows, separability, error, error_split, labels)
    concepts = sorted({concept for _, concept in x})
    cells = sorted({cell for cell, _ in x})
    runs: dict[Key, list[Run]] = defaultdict(list)
    for regularizer in sorted({cell[0] for cell in cells if cell[2] != 0}):
        of_seed_and_dose = {c[1:]: c for c in cells if c[0] == regularizer or c[2] == 0}
        for (seed, dose), cell in of_seed_and_dose.items():
            pairs = {c: (x.get((cell, c), float("nan")), _of_concept(y, cell, c)) for c in concepts}
            pairs = {c: pair for c, pair in pairs.items() if all(map(_is_positive, pair))}
            if pairs and len(pairs) == len(concepts):
                means = map(_geometric_mean, zip(*pairs.values(), strict=True))
                runs[regularizer, POOLED].append(Run(seed, dose, *means))
            for concept, pair in pairs.items():
                runs[regularizer, concept].append(Run(seed, dose, *pair))
    return dict(sorted(runs.items(), key=lambda item: (item[0][0], item[0][1] != POOLED)))


def _figures(
    rows: Iterable[Row], separability: str, error: str, error_split: str, labels: str
) -> tuple[dict[tuple[Cell, str], float], dict[tuple[Cell, str], float]]:
    x: dict[tuple[Cell, str], float] = {}
    y: dict[tuple[Cell, str], float] = {}
    for row in rows:
        dose = float(row["dose"])
        if row["concept"] == POOLED or (row["labels"] != labels and dose != 0):
            continue
        key = ((str(row["regularizer"]), int(row["seed"]), dose), str(row["concept"]))
        if row["split"] == "heldout_items":
            _put(x, key, row[separability])
        if row["split"] == error_split:
            _put(y, key, row[error])
    return x, y


def _put(table: dict[Any, float], key: Any, value: Any) -> None:
    if key in table:
        raise ValueError(f"expected one row a cell, split and concept, got two of {key}")
    table[key] = float("nan") if value in ("", None) else float(value)


def _of_concept(y: Mapping[Any, float], cell: Cell, concept: str) -> float:
    """Return the error of the concept; on text, which has no concepts, the one there is."""
    return y.get((cell, concept), y.get((cell, TEXT), float("nan")))


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _worded(key: Key, r: DoseResponse, p: float, alpha: float) -> tuple[str, str]:
    place = f"{key[0]}, {key[1]}"
    if r.reason is not None:
        return "undecided", f"{place}: undecided, {r.reason}"
    if 2.0 ** (1 - r.n_seeds) > alpha:
        return "undecided", (
            f"{place}: undecided, {r.n_seeds} seeds cannot give a p-value under "
            f"{2.0 ** (1 - r.n_seeds):.3g}; run more seeds"
        )
    if not r.moved_interval.low > 0:
        return "undecided", (
            f"{place}: undecided, the doses did not move separability (log change "
            f"{r.moved:+.3g} [{r.moved_interval.low:+.3g}, {r.moved_interval.high:+.3g}])"
        )
    figures = (
        f"elasticity of the error {r.slope:+.3g} [{r.interval.low:+.3g}, {r.interval.high:+.3g}], "
        f"p = {p:.3g} adjusted, {r.n_seeds} seeds"
    )
    leaves_out_zero = r.interval.low > 0 or r.interval.high < 0
    if p <= alpha and leaves_out_zero:
        word = "raises" if r.slope > 0 else "lowers"
        return f"effect: {word}", f"{place}: effect, separability {word} the error; {figures}"
    return "no evidence", f"{place}: no evidence that separability moves the error; {figures}"


def control_contrasts(
    rows: Iterable[Row], figures: Sequence[str] = ("relative_aedp", "mse"), level: float = 0.95
) -> list[dict[str, Any]]:
    """Return paired relative differences at equal seeds, for held-out items and held-out text.

    Each dose against its control (λ = 0), and, at doses that were also run with shuffled labels,
    true against shuffled labels: what the same push costs when it means nothing.
    """
    arms: dict[Arm, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row["split"] not in ("heldout_items", TEXT):
            continue
        for figure in figures:
            value = row.get(figure)
            if value not in ("", None) and _is_positive(float(value)):
                about = (row["split"], row["concept"], figure, row["regularizer"])
                arm = (*about, row["labels"], float(row["dose"]))
                arms[arm][int(row["seed"])] = float(value)
    contrasts = []
    for arm, values in sorted(arms.items()):
        split, concept, figure, regularizer, labels, dose = arm
        if dose == 0:
            continue
        controls = [v for a, v in arms.items() if a[:3] == arm[:3] and a[5] == 0]
        against = {
            "dose 0": {seed: value for control in controls for seed, value in control.items()}
        }
        if labels == "given":
            shuffled = arms.get((*arm[:4], "shuffled", dose))
            against |= {"shuffled labels": shuffled} if shuffled else {}
        row = {"split": split, "concept": concept, "figure": figure}
        row |= {"regularizer": regularizer, "labels": labels, "dose": dose}
        for name, control in against.items():
            found = paired_difference(values, control, level)
            contrasts.append(row | {"against": name} | found)
    return contrasts
