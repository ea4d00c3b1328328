"""What fine-tuning measures of an SAE: which latents are active, how far apart its items lie."""

import torch
from torch import Tensor

from saerepgeo.cases.separability.losses import reduced_moments
from saerepgeo.geometry.separation import centroids, pairwise_distances
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.parallel.collectives import all_reduce_sum
from saerepgeo.types import ActivationBatch, Float, Int, SparseLatents


@torch.no_grad()
def activation_counts(
    latents: Float[Tensor, "point d_sae"] | SparseLatents,
) -> Int[Tensor, "d_sae"]:
    """Return how often each latent is active, over all processes."""
    if isinstance(latents, SparseLatents):
        active = latents.indices[latents.values > 0]
        return all_reduce_sum(torch.bincount(active, minlength=latents.d_sae))
    return all_reduce_sum((latents > 0).sum(0))


@torch.no_grad()
def item_distances(
    sae: SAEModel, points: ActivationBatch, n_items: int
) -> Float[Tensor, "item item"]:
    """Return the distances between the items' centroids of effective latents; 0 without points."""
    device = points.residuals.device
    distances = torch.zeros(n_items, n_items, device=device)
    if len(points.labels):
        effective = sae.effective_latents(sae.encode(points.residuals).latents)
        moments = reduced_moments(effective, points.labels, n_items)
        present = (moments.counts > 0).nonzero()[:, 0]
        distances[present[:, None], present] = pairwise_distances(centroids(moments))
    return distances
