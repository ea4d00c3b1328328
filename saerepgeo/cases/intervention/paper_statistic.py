"""The paper's own evidence, on its own protocol, beside what that protocol does by construction."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from saerepgeo.cases.statistics import correlations

__all__ = ["paper_statistic", "random_walk_distance"]


def random_walk_distance(
    start: float, n_features: int, n_steps: int, scale_factor: float, step: float = 0.01
) -> float:
    """Return the distance of two centroids that is expected after the paper's random walk.

    ICD(n) = √(d₀² + 2·F·n·(0.01·α)²): every step adds α·0.01·N(0, 1) to each of F coordinates of
    both centroids, so that their difference gains variance 2·(0.01·α)² in each. In the root mean
    square it is exact. The distance grows whatever the objective asks for.

    >>> random_walk_distance(3.0, 8, 1, 100.0)
    5.0
    """
    return math.sqrt(start**2 + 2 * n_features * n_steps * (step * scale_factor) ** 2)


def paper_statistic(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the correlation of the distance kept and the error, as the paper reads them.

    Over the rows of protocol `paper` of `intervention_analysis_results_icd_monge.csv`, for each
    concept and loss over its scale factors. The correlation is of points of one random walk each:
    neighboring points are no independent draws, and none compares with a control. A constant
    column gives NaN.
    """
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["protocol"] == "paper" and row["intervention"] == "centroid_shift":
            key = (str(row["model"]), str(row["concept"]), str(row["loss_type"]))
            groups[key].append((float(row["best_inter_cluster_dist"]), float(row["mse_loss"])))
    found = []
    for (model, concept, loss_type), pairs in groups.items():
        pearson, p_value, spearman = correlations(*zip(*pairs, strict=True))
        found.append(
            {
                "model": model,
                "concept": concept,
                "loss_type": loss_type,
                "n": len(pairs),
                "pearson": pearson,
                "pearson_p": p_value,
                "spearman": spearman,
                "sentence": (
                    f"{concept}, {loss_type}: Pearson {pearson:+.2f} (p = {p_value:.2g}), Spearman "
                    f"{spearman:+.2f} of distance and mse over {len(pairs)} scale factors"
                ),
            }
        )
    return found
