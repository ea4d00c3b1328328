"""Case 3 on latents as the paper does it: centroids walk at random, the best step is kept."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.data.prompts import token_filter
from saerepgeo.geometry.clusters import cluster
from saerepgeo.geometry.separation import average_pairwise_distance
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import Bool, ConceptActivations, Float, Int, to_dense

SEED = 42
MIN_CLUSTER_SIZE = 10
"""Of HDBSCAN, as in case 2."""
N_EVALUATIONS = 10
STEP = 0.01
MSE_WEIGHT = 1.0
"""λ of the paper's objectives."""
EPSILON = 1e-8
LOSS_TYPES = ("d_GW", "AEDP^-1")

Decode = Callable[[Tensor], Tensor]


class PaperPoints(NamedTuple):
    """All positions of a concept's prompts, BOS and padding included, one row each."""

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


@torch.no_grad()
def paper_points(
    sae: SAEModel,
    concept: ConceptActivations,
    tokenizer: Any,
    cluster_labels: Int[Tensor, "point"] | None = None,
    outputs: Float[Tensor, "prompt position d_out"] | None = None,
) -> PaperPoints:
    """Return every position of every prompt, clustered as in case 2."""
    residuals = (concept.residuals if outputs is None else outputs).flatten(0, 1)
    everywhere = torch.ones_like(concept.is_real)
    latents = to_dense(sae.encode_prompts(concept.residuals, everywhere).latents)
    if cluster_labels is None:
        from saerepgeo.cases.structure.paper_embedding import paper_embedding

        cluster_labels = cluster(paper_embedding(latents), MIN_CLUSTER_SIZE).to(latents.device)
    passes = token_filter(concept.concept, tokenizer, "paper")(concept.tokens).flatten()
    return PaperPoints(residuals, latents, cluster_labels, passes.to(residuals.device))


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
    `decode` maps latents `[point, d_sae]` to reconstructions, `scale_factor` is α, the `generator`
    is on the CPU. `moves_together` is the control that the paper lacks: all centroids take the
    first one's step, so that points move as far and no distance changes.
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


def walk_rows(
    points: PaperPoints, decode: Decode, scale_factors: Sequence[float]
) -> tuple[list[dict[str, Any]], dict[float, Walk]]:
    """Return a row for each walk and loss, the best evaluation of the walk; and the walks.

    Every scale factor has its walk, `centroid_shift`, and its control, `common_shift`. Fewer than
    two clusters, or no position that passes the token filter: one row whose `reason` says so.
    """
    n_clusters = len(points.clusters[points.clusters >= 0].unique())
    n_points = int(points.passes.sum())
    counts = {"n_clusters": n_clusters, "n_points": n_points}
    if n_clusters < 2 or n_points == 0:
        reason = f"{n_clusters} clusters and {n_points} positions that pass the token filter"
        about = {"intervention": "centroid_shift", "protocol": "paper", "reason": reason}
        return [about | {"loss_type": "", "scale_factor": ""} | counts], {}
    rows: list[dict[str, Any]] = []
    walks: dict[float, Walk] = {}
    for intervention in ("centroid_shift", "common_shift"):
        for alpha in scale_factors:
            generator = torch.Generator().manual_seed(SEED)  # one seed, pinned, for every walk
            is_control = intervention == "common_shift"
            walk = random_walk(points, decode, alpha, generator, is_control)
            walks.setdefault(alpha, walk)  # not the control
            for loss_type in LOSS_TYPES:
                about = {"intervention": intervention, "loss_type": loss_type}
                rows.append(about | {"scale_factor": alpha} | _best(walk, loss_type) | counts)
    return rows, walks


def _best(walk: Walk, loss_type: str) -> dict[str, Any]:
    """Return the evaluation with the least objective."""
    objective = walk.objective(loss_type)
    best = int(objective.argmin())
    return {
        "mse_loss": float(walk.errors[best]),
        "original_inter_cluster_dist": float(walk.distances[0]),
        "best_inter_cluster_dist": float(walk.distances[best]),
        "protocol": "paper",
        "mse_original": float(walk.errors[0]),
        "objective": float(objective[best]),
        "best_step": best,
    }


def random_walk_distance(
    start: float, n_features: int, n_steps: int, scale_factor: float, step: float = STEP
) -> float:
    """Return the distance of two centroids that is expected after the paper's random walk.

    ICD(n) = √(d₀² + 2·F·n·(0.01·α)²): every step adds α·0.01·N(0, 1) to each of F coordinates of
    both centroids. In the root mean square it is exact, whatever the objective asks for.

    >>> random_walk_distance(3.0, 8, 1, 100.0)
    5.0
    """
    return math.sqrt(start**2 + 2 * n_features * n_steps * (step * scale_factor) ** 2)
