"""Case 3 on latents, soundly: centroids displaced by gradients, within what latents can be."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    class_moments,
    pairwise_distances,
    relative_aedp,
)
from saerepgeo.geometry.transport import gromov_wasserstein
from saerepgeo.losses import squared_error
from saerepgeo.types import Float, Int

__all__ = ["Displaced", "ItemPoints", "displace", "random_displacement", "sound_rows"]

LOSS_TYPES = ("d_GW", "AEDP")
LEARNING_RATE = 0.02


class ItemPoints(NamedTuple):
    """Points that have seen their item, in the gauge of unit decoder rows."""

    residuals: Float[Tensor, "point d_model"]
    effective: Float[Tensor, "point d_sae"]
    """Effective latents."""
    labels: Int[Tensor, "point"]
    n_items: int
    recons_under: Callable[[Tensor], Tensor]
    """Factors `[point, d_sae]` on the latents → reconstructions in residual units."""


class Displaced(NamedTuple):
    """Where an intervention left the centroids and what it costs."""

    displacements: Float[Tensor, "item d_sae"]
    """Of the centroids, in effective latents."""
    moments: ClassMoments
    mse: float
    objective: float


def displace(
    points: ItemPoints,
    loss_type: str,
    scale_factor: float,
    n_steps: int = 60,
    mse_weight: float = 1.0,
) -> Displaced:
    """Return the displacement of centroids that minimises R + λ·mse/σ², by Adam.

    Each item's centroid moves by δ_k, and every point of the item carries it in proportion to its
    own activations: z_pi → z_pi·exp(g_ki), so that δ_ki = c_ki·(exp(g_ki) − 1) exactly. Latents
    stay ≥ 0 and no latent switches on or off, whatever the step. R is, with D the distances of
    the centroids and D₀ those before,

    - d_GW: GW(D, α·D₀)/mean((α·D₀)²), Gromov–Wasserstein (gradient through the fixed plan),
    - AEDP: log²(AEDP/(α·AEDP₀)).

    σ² is the variance of the residuals, mse = mean ‖x̂ − x‖² in residual units. At α = 1 nothing
    asks centroids to move but the error: that is the control which other α are to be read against.

    Raises:
        ValueError: unknown `loss_type`, `scale_factor` not positive, fewer than two items, or
            centroids that coincide.
    """
    if loss_type not in LOSS_TYPES or not scale_factor > 0:
        raise ValueError(
            f"`loss_type` must be of {', '.join(LOSS_TYPES)} and `scale_factor` positive, got "
            f"{loss_type!r} and {scale_factor}"
        )
    before = _moments(points, points.effective)
    target = scale_factor * pairwise_distances(centroids(before))
    if len(target) < 2 or not bool(target.max() > 0):
        raise ValueError(f"needs two or more items apart from each other, got {len(target)}")
    variance = (points.residuals - points.residuals.mean(0)).square().sum(1).mean()
    log_gains = torch.zeros(points.n_items, points.effective.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([log_gains], lr=LEARNING_RATE)
    plan: Tensor | None = None
    for step in range(n_steps + 1):
        gains = log_gains[points.labels].exp()
        moments = _moments(points, points.effective * gains)
        mse = squared_error(points.recons_under(gains), points.residuals)
        if loss_type == "d_GW":
            distances = pairwise_distances(centroids(moments))
            value, plan = gromov_wasserstein(distances, target, plan=plan, n_anchors=0)
            term = value / target.square().mean()
        else:
            wanted = average_pairwise_distance(centroids(before)).value * scale_factor
            term = (average_pairwise_distance(centroids(moments)).value / wanted).log().square()
        objective = term + mse_weight * mse / variance
        if step < n_steps:
            log_gains.grad = torch.autograd.grad(objective, log_gains)[0]
            optimizer.step()
    after = ClassMoments(*(moment.detach() for moment in moments))
    shift = centroids(after) - centroids(before)
    return Displaced(shift, after, float(mse.detach()), float(objective.detach()))


@torch.no_grad()
def random_displacement(
    points: ItemPoints, norms: Float[Tensor, "item"], generator: torch.Generator
) -> Displaced:
    """Return the control: every centroid displaced as far, in a random direction it can take.

    The direction is Gaussian on the latents that are active in the item; where it would take a
    latent below 0 it stops there, and the rest is lengthened until ‖δ_k‖ is `norms[k]`.
    """
    before = _moments(points, points.effective)
    centres = centroids(before)
    directions = torch.randn(centres.shape, generator=generator, dtype=centres.dtype)
    directions = torch.where(centres > 0, directions, torch.zeros_like(directions))
    shift = torch.stack(
        [_stretched(*row) for row in zip(directions, centres, norms.tolist(), strict=True)]
    )
    of_items = 1 + shift / torch.where(centres > 0, centres, torch.ones_like(centres))
    rank = torch.cumsum(before.counts > 0, 0) - 1  # items without points have no centroid
    gains = of_items[rank[points.labels]].float()
    mse = float(squared_error(points.recons_under(gains), points.residuals))
    return Displaced(shift, _moments(points, points.effective * gains), mse, float("nan"))


def _stretched(direction: Tensor, centre: Tensor, norm: float) -> Tensor:
    """Return max(s·direction, −centre) with the s that gives it the norm, by bisection."""
    low, high = 0.0, 1.0
    if not bool((direction > 0).any()):
        direction = -direction
    while float(torch.maximum(high * direction, -centre).norm()) < norm:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        is_short = float(torch.maximum(middle * direction, -centre).norm()) < norm
        low, high = (middle, high) if is_short else (low, middle)
    return torch.maximum(high * direction, -centre)


def sound_rows(
    points: ItemPoints,
    scale_factors: Sequence[float],
    generator: torch.Generator,
    n_steps: int = 60,
) -> tuple[list[dict[str, Any]], dict[tuple[str, float], Displaced]]:
    """Return a row for each loss and scale factor and one for its control; and the displacements.

    Centroids that cannot be displaced (fewer than two items) give no rows.
    """
    before = _moments(points, points.effective)
    if int((before.counts > 0).sum()) < 2:
        return [], {}
    unmoved = torch.ones_like(points.effective)
    with torch.no_grad():
        mse = float(squared_error(points.recons_under(unmoved), points.residuals))
    rows, found = [], {}
    for loss_type in LOSS_TYPES:
        for scale_factor in scale_factors:
            moved = displace(points, loss_type, scale_factor, n_steps)
            norms = moved.displacements.norm(dim=1)
            control = random_displacement(points, norms, generator)
            found[loss_type, scale_factor] = moved
            for name, result in (("centroid_shift", moved), ("random_direction", control)):
                about = {
                    "intervention": name,
                    "loss_type": loss_type,
                    "scale_factor": scale_factor,
                }
                rows.append(
                    about | _figures(result, before, mse) | {"n_points": len(points.labels)}
                )
    return rows, found


def _figures(result: Displaced, before: ClassMoments, mse_before: float) -> dict[str, Any]:
    original, best = (average_pairwise_distance(centroids(m)) for m in (before, result.moments))
    size = centroids(before).norm(dim=1).square().mean().sqrt()
    return {
        "mse_loss": result.mse,
        "original_inter_cluster_dist": float(original),
        "best_inter_cluster_dist": float(best),
        "protocol": "sound",
        "mse_original": mse_before,
        "objective": result.objective if math.isfinite(result.objective) else None,
        "relative_aedp_original": float(relative_aedp(before)),
        "relative_aedp_best": float(relative_aedp(result.moments)),
        "displacement": float(result.displacements.norm(dim=1).mean() / size),
        "n_clusters": original.n_used,
    }


def _moments(points: ItemPoints, effective: Tensor) -> ClassMoments:
    return class_moments(effective, points.labels, points.n_items)
