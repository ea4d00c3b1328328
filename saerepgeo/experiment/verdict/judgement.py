"""From the rows of an experiment to worded verdicts, corrected for their number."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

from saerepgeo.experiment.cells import (
    ITEMS,
    POOLED,
    TEXT,
    Cell,
    Row,
    cell_figures,
    figure_pairs,
    is_positive,
)
from saerepgeo.experiment.verdict.dose_response import (
    DoseResponse,
    Run,
    dose_response,
    holm,
    paired_difference,
)

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
        r, slope, moved = self.response, self.response.interval, self.response.moved_interval
        return (
            dict(zip(self._fields[:4], self[:4], strict=True))
            | {"n_seeds": r.n_seeds, "n_seeds_dropped": r.n_dropped}
            | {"slope": r.slope, "slope_low": slope.low, "slope_high": slope.high}
            | {"level": slope.level, "p_value": r.p_value, "p_adjusted": self.p_adjusted}
            | {"curvature": r.curvature, "separability_moved": r.moved}
            | {"moved_low": moved.low, "moved_high": moved.high}
            | {"pearson": r.pearson, "spearman": r.spearman}
            | {"verdict": self.verdict, "sentence": self.sentence}
        )


def judge(
    rows: Iterable[Row],
    separability: str = "relative_aedp",
    error: str = "mse",
    error_split: str = ITEMS,
    alpha: float = 0.05,
) -> list[Verdict]:
    """Return for every regularizer the pooled verdict and one for each concept.

    An effect is one whose Holm-adjusted p-value is at most `alpha` and whose interval (of level
    1 − alpha) leaves out 0, at doses that did move separability. The pooled verdicts of all
    regularizers are one family of tests, the verdicts of single concepts another. "No evidence"
    is said with the interval, which says what effects remain possible.

    `rows` are those of `finetune_results.csv`, `separability` and `error` columns of them: the one
    of the split `heldout_items` (scale-free ones compare over doses), the other of `error_split`:
    `heldout_items`, `heldout_prompts`, or `text` (one error for all concepts). Rows of shuffled
    labels (see `control_contrasts`) and concepts without a finite positive figure are left out.
    ValueError: no rows of the splits named; one cell twice.
    """
    runs = _collect_runs(rows, separability, error, error_split)
    if not runs:
        raise ValueError(
            f"no rows hold `{separability}` of {ITEMS} and `{error}` of {error_split}; "
            "has any run of the experiment finished?"
        )
    responses = {key: dose_response(of_key, 1 - alpha) for key, of_key in runs.items()}
    adjusted: dict[Key, float] = {}
    for is_pooled in (True, False):
        family = {k: r.p_value for k, r in responses.items() if (k[1] == POOLED) == is_pooled}
        adjusted |= dict(zip(family, holm(list(family.values())), strict=True))
    verdicts = []
    for key, response in responses.items():
        p, column = adjusted[key], f"{error}/{error_split}"
        word, sentence = _worded(response, p, alpha)
        sentence = f"{', '.join(key)}: {sentence}"
        verdicts.append(Verdict(*key, separability, column, response, p, word, sentence))
    return verdicts


def _collect_runs(
    rows: Iterable[Row], separability: str, error: str, error_split: str
) -> dict[Key, list[Run]]:
    """Return the runs of each (regularizer, concept), pooled first.

    A run with dose 0 is the control of every regularizer.
    """
    counted = [row for row in rows if row["labels"] == "given" or float(row["dose"]) == 0]
    pairs = figure_pairs(counted, separability, error, error_split)
    regularizers = {cell.regularizer for cell in pairs if cell.dose != 0}
    runs: dict[Key, dict[tuple[int, float], Run]] = defaultdict(dict)
    for cell, of_cell in pairs.items():
        concerned = regularizers if cell.dose == 0 else {cell.regularizer}
        for key in product(concerned, of_cell):
            runs[key][cell.seed, cell.dose] = Run(cell.seed, cell.dose, *of_cell[key[1]])
    order = sorted(runs, key=lambda key: (key[0], key[1] != POOLED, key[1]))
    return {key: list(runs[key].values()) for key in order}


def _worded(r: DoseResponse, p: float, alpha: float) -> tuple[str, str]:
    """Return the verdict on a response, and what a sentence says of it."""
    moved, slope = (
        f"{value:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"
        for value, interval in ((r.moved, r.moved_interval), (r.slope, r.interval))
    )
    least_p = 2.0 ** (1 - r.n_seeds)
    reason = r.reason
    if reason is None and least_p > alpha:
        reason = f"{r.n_seeds} seeds cannot give a p-value under {least_p:.3g}; run more seeds"
    if reason is None and not r.moved_interval.low > 0:
        reason = f"the doses did not move separability (log change {moved})"
    if reason is not None:
        return "undecided", f"undecided, {reason}"
    figures = f"elasticity of the error {slope}, p = {p:.3g} adjusted, {r.n_seeds} seeds"
    leaves_out_zero = r.interval.low > 0 or r.interval.high < 0
    if p <= alpha and leaves_out_zero:
        word = "raises" if r.slope > 0 else "lowers"
        return f"effect: {word}", f"effect, separability {word} the error; {figures}"
    return "no evidence", f"no evidence that separability moves the error; {figures}"


def control_contrasts(
    rows: Sequence[Row], figures: Sequence[str] = ("relative_aedp", "mse"), level: float = 0.95
) -> list[dict[str, Any]]:
    """Return paired relative differences at equal seeds, for held-out items and held-out text.

    Each dose against its control (λ = 0), and, at doses that were also run with shuffled labels,
    true against shuffled labels: what the same push costs when it means nothing.
    """
    contrasts = []
    for split, figure in product((ITEMS, TEXT), figures):
        arms: dict[tuple[str, Cell], dict[int, float]] = defaultdict(dict)
        controls: dict[str, dict[int, float]] = defaultdict(dict)
        for cell, of_cell in cell_figures(rows, figure, split).items():
            for concept, value in of_cell.items():
                if is_positive(value):
                    of_arm = controls[concept] if cell.dose == 0 else arms[concept, cell.arm]
                    of_arm[cell.seed] = value
        for (concept, arm), values in arms.items():
            about: dict[str, Any] = {"split": split, "concept": concept, "figure": figure}
            about |= {"regularizer": arm.regularizer, "labels": arm.labels, "dose": arm.dose}
            others = {"dose 0": controls[concept]}
            shuffled = arms.get((concept, arm._replace(labels="shuffled")))
            if arm.labels == "given" and shuffled:
                others["shuffled labels"] = shuffled
            for name, other in others.items():
                paired = paired_difference(values, other, level)
                contrasts.append(about | {"against": name} | paired)
    order = ("split", "concept", "figure", "regularizer", "labels", "dose")
    return sorted(contrasts, key=lambda row: [row[name] for name in order])
