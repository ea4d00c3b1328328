"""Case 3 on latents: shift the centroids of a concept's clusters, decode, measure the error."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from torch import Tensor

from saerepgeo.cases.intervention.displacement import Displaced, displacement_rows, item_points
from saerepgeo.cases.intervention.random_walk import Walk, paper_points, walk_rows
from saerepgeo.geometry.clouds.entries import full_precision
from saerepgeo.geometry.separation import centroids
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import ConceptActivations, Float, Int, generator_for

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
    centroids: Float[Tensor, "item d_sae"]
    """Of effective latents, before."""


@full_precision()
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
    """Return both protocols' interventions on the latents of one concept; never under autocast.

    Args:
        sae: in evaluation mode.
        concept: its prompts' residuals; with those of the padding, for the paper's protocol.
        tokenizer: the language model's `transformers` tokenizer, for the token filter.
        model: name of LM and layer in the rows.
        cluster_labels: of all positions, flattened, for the paper's protocol; by default those of
            case 2 (`paper_embedding`, HDBSCAN).
        outputs: what a transcoder reconstructs, at the same positions; by default the residuals.
    """
    rows: list[dict[str, Any]] = []
    walks: dict[float, Walk] = {}
    displaced: dict[tuple[str, float], Displaced] = {}
    # gradients cannot be taken through tensors that were made in inference mode
    parts: Any = [part.clone() if isinstance(part, Tensor) else part for part in concept]
    concept = ConceptActivations(*parts)
    with _frozen(sae):
        points = item_points(sae, concept, outputs)
        if "paper" in protocols:
            shifted = paper_points(sae, concept, tokenizer, cluster_labels, outputs)
            rows, walks = walk_rows(shifted, sae.decode_alone, scale_factors)
        if "sound" in protocols:
            generator = generator_for(SEED, f"random directions/{concept.concept}")
            found, displaced = displacement_rows(points, scale_factors, generator)
            rows += found
    rows = [{"concept": concept.concept, "model": model} | row for row in rows]
    moments = points.moments()
    items = tuple(n for n, count in zip(concept.items, moments.counts, strict=True) if count > 0)
    return Intervention(model, rows, walks, displaced, items, centroids(moments).float())


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
