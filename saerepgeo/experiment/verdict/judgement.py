"""From the rows of an experiment to worded verdicts, corrected for their number."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from saerepgeo.experiment.cells import POOLED, TEXT, Cell, cell_figures, figure_pairs, is_positive
from saerepgeo.experiment.verdict.dose_response import (
    DoseResponse,
    Run,
    dose_response,
    holm,
    paired_difference,
)

Row = Mapping[str, Any]
Key = tuple[str, str]
"""regularizer, concept"""


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
    runs = _collect_runs(list(rows), separability, error, error_split)
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


def _collect_runs(
    rows: Sequence[Row], separability: str, error: str, error_split: str
) -> dict[Key, list[Run]]:
    """Return the runs of each (regularizer, concept), pooled first.

    A run with dose 0 is the control of every regularizer.
    """
    counted = [row for row in rows if row["labels"] == "given" or float(row["dose"]) == 0]
    pairs = figure_pairs(counted, separability, error, error_split)
    regularizers = {cell.regularizer for cell in pairs if cell.dose != 0}
    runs: dict[Key, dict[tuple[int, float], Run]] = defaultdict(dict)
    for cell, of_cell in pairs.items():
        for regularizer in regularizers if cell.dose == 0 else [cell.regularizer]:
            for concept, pair in of_cell.items():
                run = Run(cell.seed, cell.dose, *pair)
                runs[regularizer, concept][cell.seed, cell.dose] = run
    order = sorted(runs, key=lambda key: (key[0], key[1] != POOLED, key[1]))
    return {key: list(runs[key].values()) for key in order}


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
    rows: Sequence[Row], figures: Sequence[str] = ("relative_aedp", "mse"), level: float = 0.95
) -> list[dict[str, Any]]:
    """Return paired relative differences at equal seeds, for held-out items and held-out text.

    Each dose against its control (λ = 0), and, at doses that were also run with shuffled labels,
    true against shuffled labels: what the same push costs when it means nothing.
    """
    contrasts = []
    for split, figure in product(("heldout_items", TEXT), figures):
        arms: dict[str, dict[Cell, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for cell, of_cell in cell_figures(rows, figure, split).items():
            for concept, value in of_cell.items():
                if is_positive(value):
                    arms[concept][cell._replace(seed=0)][cell.seed] = value
        for concept, of_concept in arms.items():
            about = {"split": split, "concept": concept, "figure": figure}
            contrasts += [about | contrast for contrast in _contrasts(of_concept, level)]
    order = ("split", "concept", "figure", "regularizer", "labels", "dose")
    return sorted(contrasts, key=lambda row: [row[name] for name in order])


def _contrasts(arms: Mapping[Cell, Mapping[int, float]], level: float) -> Iterator[dict[str, Any]]:
    """Give the contrasts of a figure whose value is known by arm (cell without seed) and seed."""
    control = {
        seed: v for arm, values in arms.items() if arm.dose == 0 for seed, v in values.items()
    }
    for arm, values in arms.items():
        if arm.dose == 0:
            continue
        against: dict[str, Mapping[int, float]] = {"dose 0": control}
        shuffled = arms.get(arm._replace(labels="shuffled"))
        if arm.labels == "given" and shuffled:
            against["shuffled labels"] = shuffled
        for name, others in against.items():
            about = {"regularizer": arm.regularizer, "labels": arm.labels, "dose": arm.dose}
            yield about | {"against": name} | paired_difference(values, others, level)
