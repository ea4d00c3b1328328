"""Case 3 on latents: shift the centroids of a concept's clusters, decode, measure the error."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saerepgeo.cases.intervention.displacement import Displaced, ItemPoints, sound_rows
from saerepgeo.cases.intervention.random_walk import PaperPoints, Walk, paper_rows, random_walk
from saerepgeo.data.prompts import token_filter
from saerepgeo.geometry.clusters import cluster
from saerepgeo.geometry.separation import centroids, class_moments
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import ConceptActivations, Float, Int, SparseLatents, generator_for

__all__ = ["Intervention", "intervene", "item_points", "paper_points"]

Protocol = Literal["paper", "sound"]
SCALE_FACTORS = (0.5, 0.8, 1.0, 1.2, 1.5)
SEED = 42


class Intervention(NamedTuple):
    """What an intervention on one concept gives."""

    model: str
    rows: list[dict[str, Any]]
    """Of `intervention_analysis_results_icd_monge.csv`."""
    walks: dict[float, Walk]
    """Protocol `paper`: the walk of each scale factor; empty without two clusters."""
    displaced: dict[tuple[str, float], Displaced]
    """Protocol `sound`: by loss and scale factor."""
    items: tuple[str, ...]
    """Items that have a centroid."""
    centroids: Tensor
    """`[item, d_sae]` of effective latents, before."""


def intervene(
    sae: SAEModel,
    concept: ConceptActivations,
    tokenizer: Any,
    model: str,
    protocols: Sequence[Protocol] = ("paper", "sound"),
    scale_factors: Sequence[float] = SCALE_FACTORS,
    cluster_labels: Int[Tensor, "point"] | None = None,
    outputs: Float[Tensor, "prompt position d_out"] | None = None,
) -> Intervention:
    """Return both protocols' interventions on the latents of one concept.

    Args:
        sae: in evaluation mode.
        concept: its prompts' residuals; with those of the padding, for the paper's protocol.
        tokenizer: the language model's `transformers` tokenizer, for the token filter.
        model: name of LM and layer in the rows.
        protocols: which to run.
        scale_factors: α.
        cluster_labels: of all positions, flattened, for the paper's protocol; by default those of
            case 2 (standardized, unit rows, UMAP to 50 coordinates, HDBSCAN).
        outputs: what a transcoder reconstructs, at the same positions; by default the residuals.

    Fewer than two clusters give, for `paper`, one row whose `reason` says so.
    """
    rows: list[dict[str, Any]] = []
    walks: dict[float, Walk] = {}
    displaced: dict[tuple[str, float], Displaced] = {}
    concept = _outside_inference_mode(concept)
    with _frozen(sae):
        points = item_points(sae, concept, outputs)
        if "paper" in protocols:
            found, walks = _paper(sae, concept, tokenizer, scale_factors, cluster_labels, outputs)
            rows += found
        if "sound" in protocols:
            generator = generator_for(SEED, f"random directions/{concept.concept}")
            found, displaced = sound_rows(points, scale_factors, generator)
            rows += found
    moments = class_moments(points.effective, points.labels, points.n_items)
    items = tuple(n for n, count in zip(concept.items, moments.counts, strict=True) if count > 0)
    about = {"concept": concept.concept, "model": model}
    return Intervention(
        model, [about | row for row in rows], walks, displaced, items, centroids(moments).float()
    )


@contextmanager
def _frozen(sae: SAEModel) -> Iterator[None]:
    """Spare the gradient of the SAE's weights, whose latents alone move."""
    trained = [p for p in sae.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _outside_inference_mode(concept: ConceptActivations) -> ConceptActivations:
    """Return the concept with tensors that gradients can be taken through."""
    tensors: dict[str, Any] = {
        name: value.clone()
        for name, value in concept._asdict().items()
        if isinstance(value, Tensor)
    }
    return concept._replace(**tensors)


def _paper(
    sae: SAEModel,
    concept: ConceptActivations,
    tokenizer: Any,
    scale_factors: Sequence[float],
    cluster_labels: Tensor | None,
    outputs: Tensor | None,
) -> tuple[list[dict[str, Any]], dict[float, Walk]]:
    points = paper_points(sae, concept, tokenizer, cluster_labels, outputs)
    n_clusters = len(points.clusters[points.clusters >= 0].unique())
    n_points = int(points.passes.sum())
    if n_clusters < 2 or n_points == 0:
        reason = f"{n_clusters} clusters and {n_points} positions that pass the token filter"
        about = {"intervention": "centroid_shift", "protocol": "paper", "reason": reason}
        nothing = dict.fromkeys(("loss_type", "scale_factor"), "")
        return [about | nothing | {"n_clusters": n_clusters, "n_points": n_points}], {}

    def walk(alpha: float, moves_together: bool) -> Walk:
        generator = torch.Generator().manual_seed(SEED)  # one seed, pinned, for every walk
        return random_walk(points, sae.decode_alone, alpha, generator, moves_together)

    walks = {alpha: walk(alpha, moves_together=False) for alpha in scale_factors}
    controls = {alpha: walk(alpha, moves_together=True) for alpha in scale_factors}
    rows = paper_rows(walks, n_clusters, n_points)
    return rows + paper_rows(controls, n_clusters, n_points, "common_shift"), walks


@torch.no_grad()
def paper_points(
    sae: SAEModel,
    concept: ConceptActivations,
    tokenizer: Any,
    cluster_labels: Int[Tensor, "point"] | None = None,
    outputs: Float[Tensor, "prompt position d_out"] | None = None,
) -> PaperPoints:
    """Return every position of every prompt, BOS and padding included, clustered as in case 2."""
    residuals = (concept.residuals if outputs is None else outputs).flatten(0, 1)
    everywhere = torch.ones_like(concept.is_real)
    latents = _dense(sae.encode_prompts(concept.residuals, everywhere).latents)
    if cluster_labels is None:
        from saerepgeo.cases.structure.paper_structure import MIN_CLUSTER_SIZE, paper_embedding

        cluster_labels = cluster(paper_embedding(latents), MIN_CLUSTER_SIZE).to(latents.device)
    passes = token_filter(concept.concept, tokenizer, "paper")(concept.tokens).flatten()
    return PaperPoints(residuals, latents, cluster_labels, passes.to(residuals.device))


@torch.no_grad()
def item_points(
    sae: SAEModel,
    concept: ConceptActivations,
    outputs: Float[Tensor, "prompt position d_out"] | None = None,
) -> ItemPoints:
    """Return the last token of each item's mention; prompts that agree up to it count once."""
    seen: dict[tuple[int, ...], int] = {}
    for row, position in enumerate(concept.item_positions.tolist()):
        seen.setdefault(tuple(concept.tokens[row, : position + 1].tolist()), row)
    rows = torch.tensor(sorted(seen.values()))
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


def _dense(latents: Tensor | SparseLatents) -> Tensor:
    return latents.to_dense() if isinstance(latents, SparseLatents) else latents
