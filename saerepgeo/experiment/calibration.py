"""How often the verdict errs where the truth is known.

`python -m saerepgeo.experiment.calibration --repetitions 400`

Synthetic experiments with the design of the real one (seeds × doses × concepts, held-out items)
go through the same figures and the same judgement. Each run has its points: item centroids,
scatter about them, and errors of reconstruction. The dose moves the centroids apart or together,
and not alike both ways. log mse is

    b_seed + β_seed·(log separability gained) + price·λ² + chance of the run,

with β_seed ~ N(β, τ²): without an effect (β = 0) pushing still costs, seeds still differ in what
they answer, and chance still moves separability and error of a run together.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from saerepgeo.cli.errors import OneLineErrors
from saerepgeo.experiment.cells import ITEMS, POOLED, Cell
from saerepgeo.experiment.verdict import judge
from saerepgeo.files import write_json
from saerepgeo.geometry import class_moments, fisher_ratio, relative_aedp
from saerepgeo.types import generator_for


@dataclass(frozen=True)
class SyntheticExperiment:
    """The truth of a synthetic experiment; sizes as in `configs/case3_experiment.yaml`."""

    elasticity: float = 0.0
    """β: relative change of mse for a relative change of separability."""
    seed_spread: float = 0.02
    """τ: how much β differs between seeds."""
    price: float = 0.03
    """Relative rise of mse at dose ±1 that any push costs."""
    chance: float = 0.01
    """Relative spread of a run's mse, and of its separability in step with it."""
    reach: float = 0.4
    """Log separability gained at dose 1; at −1 three quarters of it are lost."""
    n_seeds: int = 8
    doses: tuple[float, ...] = (-1.0, -0.3, 0.0, 0.3, 1.0)
    concepts: tuple[str, ...] = ("months", "days", "elements")
    n_items: int = 4
    n_points: int = 24
    dim: int = 12


def synthetic_rows(truth: SyntheticExperiment, repetition: int) -> list[dict[str, Any]]:
    """Return the rows of one synthetic experiment, as in `finetune_results.csv`."""
    rows = []
    labels = torch.arange(truth.n_points) % truth.n_items
    sizes = (truth.n_items, truth.n_points, truth.n_points)
    for seed in range(truth.n_seeds):
        generator = generator_for(repetition, "calibration", seed)
        slope = truth.elasticity + truth.seed_spread * float(torch.randn((), generator=generator))
        for concept in truth.concepts:
            # the points of a concept under a seed: the same at every dose
            parts = [torch.randn(size, truth.dim, generator=generator) for size in sizes]
            centers, scatter, errors = parts[0][labels], 0.5 * parts[1], parts[2]
            for dose in truth.doses:
                gained = truth.reach * dose * (1 + dose / 8) / (1 + 1 / 8)
                shared, own, moved = torch.randn(3, generator=generator).tolist()
                log_scale = gained + truth.chance * (shared + moved)
                log_error = slope * gained + truth.price * dose**2
                log_error += truth.chance * (shared + own) / 2**0.5 * (dose != 0)
                points = centers * math.exp(log_scale) + scatter
                moments = class_moments(points, labels, truth.n_items)
                figures = {
                    "relative_aedp": float(relative_aedp(moments)),
                    "fisher_ratio": float(fisher_ratio(moments)),
                    "mse": float((errors * math.exp(log_error / 2)).square().sum(1).mean()),
                }
                cell = Cell("synthetic", dose, seed)._asdict()
                rows.append(cell | {"split": ITEMS, "concept": concept} | figures)
    return rows


def calibrate(
    truth: SyntheticExperiment, n_repetitions: int, separability: str = "relative_aedp"
) -> dict[str, Any]:
    """Return how many of `n_repetitions` experiments the verdict calls an effect, and which way.

    `pooled` counts pooled verdicts, `any_concept` experiments in which any single concept's
    verdict is an effect (the family-wise count), `wrong_way` pooled effects of the wrong sign.
    """
    counts = {"pooled": 0, "any_concept": 0, "wrong_way": 0, "undecided": 0}
    for repetition in range(n_repetitions):
        verdicts = judge(synthetic_rows(truth, repetition), separability)
        slopes = {v.concept: v.response.slope for v in verdicts if v.verdict.startswith("effect")}
        counts["pooled"] += POOLED in slopes
        counts["wrong_way"] += slopes.pop(POOLED, 0.0) * truth.elasticity < 0
        counts["any_concept"] += bool(slopes)
        counts["undecided"] += any(v.verdict == "undecided" for v in verdicts)
    return {"truth": asdict(truth), "n": n_repetitions, "separability": separability} | counts


def main(args: Sequence[str] | None = None) -> None:
    """Calibrate without an effect and with planted ones; print counts, and write them as JSON."""
    prog = "python -m saerepgeo.experiment.calibration"
    parser = OneLineErrors(prog=prog, description=__doc__, allow_abbrev=False)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--elasticities", type=float, nargs="+", default=[0.0, -0.1, 0.1])
    parser.add_argument("--seeds", type=int, default=SyntheticExperiment.n_seeds)
    parser.add_argument("--output", help="JSON file for the counts")
    options = parser.parse_args(args)
    results = []
    for elasticity in options.elasticities:
        truth = SyntheticExperiment(elasticity=elasticity, n_seeds=options.seeds)
        results.append(found := calibrate(truth, options.repetitions))
        print(
            f"elasticity {elasticity:+.2f}: effect in {found['pooled']}/{found['n']} pooled, "
            f"{found['any_concept']}/{found['n']} in any concept, "
            f"{found['wrong_way']} the wrong way"
        )
    if options.output:
        write_json(options.output, results, indent=2)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
