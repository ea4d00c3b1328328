"""Case 3 on latents, soundly: centroids displaced by gradients, within what latents can be."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.cases.separability.losses import relative_gromov_wasserstein
from saerepgeo.data.concepts import distinct_prompts
from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    class_moments,
    pairwise_distances,
)
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import ConceptActivations, Float, Int, SparseLatents

LOSS_TYPES = ("d_GW", "AEDP")
LEARNING_RATE = 0.02


class ItemPoints(NamedTuple):
    """Points that have seen their item, as effective latents."""

    residuals: Float[Tensor, "point d_model"]
    effective: SparseLatents
    """Effective latents `[point, k]` of `d_sae`."""
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
    encoded = sae.encode_prompts(concept.residuals[rows], chosen)
    raw = encoded.latents
    if not isinstance(raw, SparseLatents):
        raw = SparseLatents.from_dense(raw)
    effective = sae.effective_latents(raw)
    assert isinstance(effective, SparseLatents)

    def recons_under(gains: Tensor) -> Tensor:
        moved = raw._replace(values=raw.values * gains)
        return sae.decode(moved, encoded.normalization).float()

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
    before = points.moments()
    target = scale_factor * pairwise_distances(centroids(before))
    if len(target) < 2 or not bool(target.max() > 0):
        raise ValueError(f"needs two or more items apart from each other, got {len(target)}")
    variance = (points.residuals - points.residuals.mean(0)).square().sum(1).mean()
    log_gains = torch.zeros(points.n_items, points.effective.d_sae, requires_grad=True)
    optimizer = torch.optim.Adam([log_gains], lr=LEARNING_RATE)
    plan: Tensor | None = None
    for step in range(n_steps + 1):
        gains = points.of_points(log_gains).exp()
        moments = points.moments(gains)
        errors = points.errors(gains)
        if loss_type == "d_GW":
            distances = pairwise_distances(centroids(moments))
            term, plan = relative_gromov_wasserstein(distances, target, plan)
        else:
            wanted = average_pairwise_distance(centroids(before)).value * scale_factor
            term = (average_pairwise_distance(centroids(moments)).value / wanted).log().square()
        objective = term + mse_weight * errors.mean() / variance
        if step < n_steps:
            log_gains.grad = torch.autograd.grad(objective, log_gains)[0]
            optimizer.step()
    after = ClassMoments(*(moment.detach() for moment in moments))
    shift = centroids(after) - centroids(before)
    return Displaced(shift, after, errors.detach(), float(objective.detach()))


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
    directions = torch.where(centers > 0, directions, torch.zeros_like(directions))
    shift = torch.stack(
        [_stretched(*row) for row in zip(directions, centers, norms.tolist(), strict=True)]
    )
    of_items = 1 + shift / torch.where(centers > 0, centers, torch.ones_like(centers))
    rank = torch.cumsum(before.counts > 0, 0) - 1  # items without points have no centroid
    gains = points.of_points(of_items[rank.clamp(min=0)]).float()
    return Displaced(shift, points.moments(gains), points.errors(gains), float("nan"))


def _stretched(direction: Tensor, center: Tensor, norm: float) -> Tensor:
    """Return max(s·direction, −center) with the s that gives it the norm, by bisection."""
    low, high = 0.0, 1.0
    if not bool((direction > 0).any()):
        direction = -direction
    while float(torch.maximum(high * direction, -center).norm()) < norm:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        is_short = float(torch.maximum(middle * direction, -center).norm()) < norm
        low, high = (middle, high) if is_short else (low, middle)
    return torch.maximum(high * direction, -center)
