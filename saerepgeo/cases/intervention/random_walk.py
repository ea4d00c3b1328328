"""Case 3 on latents as the paper does it: centroids walk at random, the best step is kept."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.geometry.separation import average_pairwise_distance
from saerepgeo.types import Bool, Float, Int

__all__ = ["PaperPoints", "Walk", "paper_rows", "random_walk", "standardize_rows"]

N_EVALUATIONS = 10
STEP = 0.01
MSE_WEIGHT = 1.0
"""λ of the paper's objectives."""
EPSILON = 1e-8

Decode = Callable[[Tensor], Tensor]


class PaperPoints(NamedTuple):
    """All positions of all prompts of a concept, BOS and padding included, one row each."""

    residuals: Float[Tensor, "point d_model"]
    latents: Float[Tensor, "point d_sae"]
    clusters: Int[Tensor, "point"]
    """HDBSCAN labels of the latents (case 2, protocol `paper`); −1 is noise, which never moves."""
    passes: Bool[Tensor, "point"]
    """Where the error is measured: positions that pass the token filter."""


class Walk(NamedTuple):
    """The figures of every evaluation of one walk."""

    distances: Float[Tensor, "evaluation"]
    """ICD, mean distance between pairs of centroids."""
    errors: Float[Tensor, "evaluation"]
    start: Float[Tensor, "pair"]
    """The distance of each pair of centroids at first."""

    def objective(self, loss_type: str) -> Float[Tensor, "evaluation"]:
        """Return 1/(ICD + 1e-8) + λ·MSE ("d_GW") or ICD + λ·MSE ("AEDP^-1")."""
        separability = 1 / (self.distances + EPSILON) if loss_type == "d_GW" else self.distances
        return separability + MSE_WEIGHT * self.errors


LOSS_TYPES = ("d_GW", "AEDP^-1")


def standardize_rows(rows: Float[Tensor, "point dim"]) -> Float[Tensor, "point dim"]:
    """Return (x − mean)/(std + 1e-8) of every row over its coordinates, std unbiased."""
    return (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + EPSILON)


@torch.no_grad()
def random_walk(
    points: PaperPoints,
    decode: Decode,
    scale_factor: float,
    generator: torch.Generator,
    moves_together: bool = False,
) -> Walk:
    """Return ten evaluations of the paper's walk, the first at the original centroids.

    After each evaluation every centroid takes a step α·0.01·N(0, 1) in each latent and its points
    move with it. The objective steers nothing: it only picks one of the ten. The error is
    mean((z(x) − decode(z(latents)))²) over elements, z the standardization of each row.

    Args:
        points: of one concept.
        decode: latents `[point, d_sae]` → reconstructions `[point, d_model]`.
        scale_factor: α.
        generator: of the steps, on the CPU.
        moves_together: the control that the paper lacks: all centroids take the first one's step,
            so that points move as far and no distance changes.
    """
    ids = points.clusters[points.clusters >= 0].unique()
    centers = torch.stack([points.latents[points.clusters == k].mean(0) for k in ids])
    targets = standardize_rows(points.residuals[points.passes])
    moving, clusters = points.latents[points.passes].clone(), points.clusters[points.passes]
    distances, errors, start = [], [], torch.pdist(centers.double())
    for _ in range(N_EVALUATIONS):
        recons = decode(standardize_rows(moving))
        distances.append(average_pairwise_distance(centers).value)
        errors.append((targets - recons).double().square().mean())
        steps = torch.randn(centers.shape, generator=generator).to(centers)
        steps = scale_factor * STEP * (steps[:1].expand_as(steps) if moves_together else steps)
        centers = centers + steps
        for index, k in enumerate(ids):
            moving[clusters == k] += steps[index]
    return Walk(torch.stack(distances).cpu(), torch.stack(errors).cpu(), start.cpu())


def paper_rows(
    walks: dict[float, Walk], n_clusters: int, n_points: int, intervention: str = "centroid_shift"
) -> list[dict[str, Any]]:
    """Return a row for each scale factor and loss: the best evaluation of its walk."""
    rows = []
    for scale_factor, walk in walks.items():
        for loss_type in LOSS_TYPES:
            objective = walk.objective(loss_type)
            best = int(objective.argmin())
            rows.append(
                {
                    "intervention": intervention,
                    "loss_type": loss_type,
                    "scale_factor": scale_factor,
                    "mse_loss": float(walk.errors[best]),
                    "original_inter_cluster_dist": float(walk.distances[0]),
                    "best_inter_cluster_dist": float(walk.distances[best]),
                    "protocol": "paper",
                    "mse_original": float(walk.errors[0]),
                    "objective": float(objective[best]),
                    "best_step": best,
                    "n_clusters": n_clusters,
                    "n_points": n_points,
                }
            )
    return rows
