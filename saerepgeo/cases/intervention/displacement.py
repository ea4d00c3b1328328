"""Case 3 on latents, soundly: centroids displaced within what latents can be, and what it costs."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saerepgeo.cases.separability.losses import relative_gromov_wasserstein
from saerepgeo.cases.statistics import student_interval
from saerepgeo.data.concepts import distinct_prompts
from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    class_moments,
    pairwise_distances,
    relative_aedp,
)
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import ConceptActivations, Float, Int, SparseLatents

LOSS_TYPES = ("d_GW", "AEDP")
LEARNING_RATE = 0.02


class ItemPoints(NamedTuple):
    """Points that have seen their item, as effective latents."""

    residuals: Float[Tensor, "point d_model"]
    effective: SparseLatents
    labels: Int[Tensor, "point"]
    n_items: int
    recons_under: Callable[[Tensor], Tensor]
    """Factors `[point, k]` on the active latents → reconstructions in residual units."""

    def of_points(self, of_items: Float[Tensor, "item d_sae"]) -> Float[Tensor, "point k"]:
        """Return what each point's active latents get of a quantity of its item."""
        return of_items[self.labels[:, None], self.effective.indices]

    def errors(self, gains: Float[Tensor, "point k"]) -> Float[Tensor, "point"]:
        """Return ‖x̂ − x‖² of each point, after factors on its active latents."""
        return (self.recons_under(gains) - self.residuals).square().sum(1)

    def moments(self, gains: Float[Tensor, "point k"] | None = None) -> ClassMoments:
        """Return the items' moments of effective latents, after factors on the active ones."""
        values = self.effective.values if gains is None else self.effective.values * gains
        moved = self.effective._replace(values=values)
        return class_moments(moved, self.labels, self.n_items)


@torch.no_grad()
def item_points(
    sae: SAEModel,
    concept: ConceptActivations,
    outputs: Float[Tensor, "prompt position d_out"] | None = None,
) -> ItemPoints:
    """Return the last token of each item's mention; prompts that agree up to it count once."""
    rows = distinct_prompts(concept)
    chosen = torch.zeros_like(concept.is_real[rows])
    chosen[torch.arange(len(rows)), concept.item_positions[rows]] = True
    residuals = (concept.residuals if outputs is None else outputs)[rows][chosen]
    raw, normalization = sae.encode_prompts(concept.residuals[rows], chosen)
    if not isinstance(raw, SparseLatents):
        raw = SparseLatents.from_dense(raw)
    effective = sae.effective_latents(raw)
    assert isinstance(effective, SparseLatents)

    def recons_under(gains: Tensor) -> Tensor:
        return sae.decode(raw._replace(values=raw.values * gains), normalization).float()

    labels = concept.labels[rows].to(residuals.device)
    return ItemPoints(residuals, effective, labels, len(concept.items), recons_under)


class Displaced(NamedTuple):
    """Where an intervention left the centroids and what it costs."""

    displacements: Float[Tensor, "item d_sae"]
    """Of the centroids, in effective latents."""
    moments: ClassMoments
    errors: Float[Tensor, "point"]
    """‖x̂ − x‖² of each point."""
    objective: float

    @property
    def mse(self) -> float:
        """Mean of the errors."""
        return float(self.errors.mean())


def displace(
    points: ItemPoints,
    loss_type: str,
    scale_factor: float,
    n_steps: int = 60,
    mse_weight: float = 1.0,
) -> Displaced:
    """Return the displacement of centroids that minimizes R + λ·mse/σ², by Adam.

    Each item's centroid moves by δ_k, and every point of the item carries it in proportion to its
    own activations: z_pi → z_pi·exp(g_ki), so that δ_ki = c_ki·(exp(g_ki) − 1) exactly. Latents
    stay ≥ 0 and no latent switches on or off. R is, with D the distances of the centroids and D₀
    those before, GW(D, α·D₀)/mean((α·D₀)²) (`d_GW`) or log²(AEDP/(α·AEDP₀)) (`AEDP`). σ² is the
    variance of the residuals. At α = 1 (`scale_factor`) nothing asks centroids to move but the
    error: the control for other α.

    Raises ValueError for an unknown `loss_type`, a `scale_factor` that is not positive, fewer than
    two items, or centroids that coincide.
    """
    if loss_type not in LOSS_TYPES or not scale_factor > 0:
        raise ValueError(
            f"`loss_type` must be of {', '.join(LOSS_TYPES)} and `scale_factor` positive, got "
            f"{loss_type!r} and {scale_factor}"
        )
    before = centroids(points.moments())
    target = scale_factor * pairwise_distances(before)
    if len(target) < 2 or not bool(target.max() > 0):
        raise ValueError(f"needs two or more items apart from each other, got {len(target)}")
    wanted = scale_factor * average_pairwise_distance(before).value
    variance = (points.residuals - points.residuals.mean(0)).square().sum(1).mean()
    log_gains = torch.zeros(points.n_items, points.effective.d_sae, device=target.device)
    log_gains.requires_grad_()
    optimizer = torch.optim.Adam([log_gains], lr=LEARNING_RATE)
    plan: Tensor | None = None
    for step in range(n_steps + 1):
        gains = points.of_points(log_gains).exp()
        moments, errors = points.moments(gains), points.errors(gains)
        if loss_type == "d_GW":
            distances = pairwise_distances(centroids(moments))
            term, plan = relative_gromov_wasserstein(distances, target, plan)
        else:
            term = (average_pairwise_distance(centroids(moments)).value / wanted).log().square()
        objective = term + mse_weight * errors.mean() / variance
        if step < n_steps:
            log_gains.grad = torch.autograd.grad(objective, log_gains)[0]
            optimizer.step()
    after = ClassMoments(*(moment.detach() for moment in moments))
    return Displaced(centroids(after) - before, after, errors.detach(), float(objective.detach()))


@torch.no_grad()
def random_displacement(
    points: ItemPoints, norms: Float[Tensor, "item"], generator: torch.Generator
) -> Displaced:
    """Return the control: every centroid displaced as far, in a random direction it can take.

    The direction is Gaussian on the latents that are active in the item; where it would take a
    latent below 0 it stops there, and the rest is lengthened until ‖δ_k‖ is `norms[k]`.
    """
    before = points.moments()
    centers = centroids(before)
    directions = torch.randn(centers.shape, generator=generator, dtype=centers.dtype)
    directions = directions.to(centers.device).where(centers > 0, 0)
    shift = torch.stack(
        [_stretched(*row) for row in zip(directions, centers, norms.tolist(), strict=True)]
    )
    of_items = 1 + shift / centers.where(centers > 0, 1)
    rank = torch.cumsum(before.counts > 0, 0) - 1  # items without points have no centroid
    gains = points.of_points(of_items[rank.clamp(min=0)]).float()
    return Displaced(shift, points.moments(gains), points.errors(gains), float("nan"))


def _stretched(direction: Tensor, center: Tensor, norm: float) -> Tensor:
    """Return max(s·direction, −center) with the s that gives it the norm, by bisection."""
    low, high = 0.0, 1.0
    if not bool((direction > 0).any()):
        direction = -direction

    def moved(size: float) -> Tensor:
        return torch.maximum(size * direction, -center)

    while float(moved(high).norm()) < norm:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        is_short = float(moved(middle).norm()) < norm
        low, high = (middle, high) if is_short else (low, middle)
    return moved(high)


def displacement_rows(
    points: ItemPoints,
    scale_factors: Sequence[float],
    generator: torch.Generator,
    n_steps: int = 60,
    n_draws: int = 39,
) -> tuple[list[dict[str, Any]], dict[tuple[str, float], Displaced]]:
    """Return a row for each loss and scale factor and one for its control; and the displacements.

    `mse_change` is the mse less that of α = 1, if there, with a 95 % interval over items. The
    control `random_direction` has the mean mse of `n_draws` directions, their 95 % range, and `p`,
    the share of them (the displacement among them) whose mse is no larger than the displacement's.
    Fewer than two items give no rows.
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
        for alpha, result in moved.items():
            found[loss_type, alpha] = result
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
    low, high, *_ = student_interval(changes.cpu(), groups=labels.cpu())
    return {"mse_change": float(changes.mean()), "mse_change_low": low, "mse_change_high": high}


def _null(observed: float, draws: Sequence[float]) -> dict[str, Any]:
    low, high = np.quantile(draws, (0.025, 0.975)).tolist()
    p_value = (1 + sum(draw <= observed for draw in draws)) / (1 + len(draws))
    return {"mse_low": low, "mse_high": high, "n_draws": len(draws), "p": p_value}


def _figures(results: Sequence[Displaced], before: ClassMoments) -> dict[str, Any]:
    """Return the means of the figures over displacements of one kind."""
    size = centroids(before).norm(dim=1).square().mean().sqrt()

    def mean(figure: Callable[[Displaced], Any]) -> float:
        return fmean(float(figure(result)) for result in results)

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
