"""What displaced centroids cost: rows against no scaling and against random directions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.cases.intervention.displacement import (
    LOSS_TYPES,
    Displaced,
    ItemPoints,
    displace,
    random_displacement,
)
from saerepgeo.cases.statistics import student_interval
from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    relative_aedp,
)


def displacement_rows(
    points: ItemPoints,
    scale_factors: Sequence[float],
    generator: torch.Generator,
    n_steps: int = 60,
    n_draws: int = 39,
) -> tuple[list[dict[str, Any]], dict[tuple[str, float], Displaced]]:
    """Return a row for each loss and scale factor and one for its control; and the displacements.

    `mse_change` is the mse less that of α = 1, with a 95 % interval over items (`student_interval`;
    only where α = 1 is among the factors). The control `random_direction` has the mean mse of
    `n_draws` directions, their 95 % range, and `p`, the share of them (the displacement among
    them) whose mse is no larger than the displacement's.

    Centroids that cannot be displaced (fewer than two items) give no rows.
    """
    before = points.moments()
    if int((before.counts > 0).sum()) < 2:
        return [], {}
    with torch.no_grad():
        mse = float(points.errors(torch.ones_like(points.effective.values)).mean())
    rows: list[dict[str, Any]] = []
    found: dict[tuple[str, float], Displaced] = {}
    for loss_type in LOSS_TYPES:
        moved = {alpha: displace(points, loss_type, alpha, n_steps) for alpha in scale_factors}
        found |= {(loss_type, alpha): result for alpha, result in moved.items()}
        for alpha, result in moved.items():
            norms = result.displacements.norm(dim=1)
            draws = [random_displacement(points, norms, generator) for _ in range(n_draws)]
            about = {"loss_type": loss_type, "scale_factor": alpha, "mse_original": mse}
            about |= {"protocol": "sound", "n_points": len(points.labels)}
            shift = _figures([result], before) | _change(result, moved.get(1.0), points.labels)
            control = _figures(draws, before) | _null(result.mse, [draw.mse for draw in draws])
            rows.append({"intervention": "centroid_shift"} | about | shift)
            rows.append({"intervention": "random_direction"} | about | control)
    return rows, found


def _change(result: Displaced, control: Displaced | None, labels: Tensor) -> dict[str, Any]:
    if control is None:
        return {}
    changes = result.errors - control.errors
    interval = student_interval(changes.cpu(), groups=labels.cpu())
    return {
        "mse_change": float(changes.mean()),
        "mse_change_low": interval.low,
        "mse_change_high": interval.high,
    }


def _null(observed: float, draws: Sequence[float]) -> dict[str, Any]:
    values = torch.tensor(draws, dtype=torch.float64)
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    p_value = (1 + int((values <= observed).sum())) / (1 + len(values))
    return {"mse_low": low, "mse_high": high, "n_draws": len(values), "p": p_value}


def _figures(results: Sequence[Displaced], before: ClassMoments) -> dict[str, Any]:
    """Return the means of the figures over displacements of one kind."""
    size = centroids(before).norm(dim=1).square().mean().sqrt()

    def mean(figure: Callable[[Displaced], Any]) -> float:
        return sum(float(figure(result)) for result in results) / len(results)

    original = average_pairwise_distance(centroids(before))
    objective = mean(lambda r: r.objective)
    return {
        "mse_loss": mean(lambda r: r.mse),
        "original_inter_cluster_dist": float(original),
        "best_inter_cluster_dist": mean(lambda r: average_pairwise_distance(centroids(r.moments))),
        "objective": objective if math.isfinite(objective) else None,
        "relative_aedp_original": float(relative_aedp(before)),
        "relative_aedp_best": mean(lambda r: relative_aedp(r.moments)),
        "displacement": mean(lambda r: r.displacements.norm(dim=1).mean() / size),
        "n_clusters": original.n_used,
    }
