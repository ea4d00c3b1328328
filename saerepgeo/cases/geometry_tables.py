"""From a model and an SAE to a table of the geometry of each concept, in one call."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

import saerepgeo.metrics as metrics
from saerepgeo.cases.analysis import ConceptPoints
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.geometry.clouds.entries import full_precision
from saerepgeo.sae.agreement import check_agreement
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import to_dense

ALONE: dict[str, Any] = {"sync_on_compute": False}
"""Every process has all the points; some lie on the CPU, where nccl could not join them."""


@dataclass(frozen=True)
class GeometryTable:
    """Rows of figures; prints as a table, and `pandas.DataFrame(table.rows)` takes it."""

    rows: list[dict[str, Any]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        if not self.rows:
            return "(no rows)"
        columns: list[list[str]] = []
        for name in self.rows[0]:
            cells = [name, *(_shown(row[name]) for row in self.rows)]
            side = "<" if len(columns) < 2 else ">"
            columns.append([f"{cell:{side}{max(map(len, cells))}}" for cell in cells])
        return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


@torch.no_grad()
@full_precision()
def geometry_table(data: ActivationDataModule, sae: SAEModel) -> GeometryTable:
    """Return, for each concept of `data`, the geometry of its residuals and of its latents.

    A point is an item at the last token of its mention, the same context counted once. Columns:
    `concept`, `space` (residuals, or effective latents), `points`, `items`; of the centered
    points `rank` (numerical), `stable_rank`, `participation_ratio` and `effective_rank`
    (exponential of the spectrum's entropy); `dimension` (TwoNN), `relative_aedp`
    (distance between the items' centroids in units of the scatter within items), `fisher_ratio`
    (scatter between over within); of the latents also `fvu` (fraction of variance unexplained) and
    `l0`. What is undefined, for want of points or items, is NaN and prints as a dash. The
    `fvu` of a transcoder is that of the activations at the hook that it writes.

    Raises:
        ValueError: data and SAE disagree (`saerepgeo.sae.agreement`), before the model is loaded.
    """
    config = {"d_in": sae.d_in, "metadata": sae.metadata}
    settings = {name: value for name, value in data.hparams.items() if name != "context_size"}
    check_agreement(config, settings, data.model_facts)
    was_training = sae.training
    sae.eval()
    try:
        return GeometryTable([row for name in data.prompts.names for row in _rows(data, name, sae)])
    finally:
        sae.train(was_training)


def _rows(data: ActivationDataModule, name: str, sae: SAEModel) -> list[dict[str, Any]]:
    concept, out = data.concept(name), sae.hook_name_out
    outputs = concept if out is None else data.concept(name, hook_name=out)
    seen = ConceptPoints.distinct(concept)
    is_mention = seen.labels >= 0
    labels = seen.labels[is_mention]
    chosen = torch.zeros_like(concept.is_real)
    chosen[seen.prompts[is_mention], seen.positions[is_mention]] = True
    device = sae.sae.W_dec.device
    found, normalization = sae.encode_prompts(concept.residuals.to(device), chosen.to(device))
    fvu = metrics.FractionVarianceUnexplained(**ALONE).to(device)
    l0 = metrics.L0(**ALONE).to(device)
    fvu.update(sae.decode(found, normalization).float(), outputs.residuals[chosen].to(device))
    l0.update(found)
    of_sae = {"fvu": float(fvu.compute()), "l0": float(l0.compute())}
    sizes = {"points": len(labels), "items": len(labels.unique())}
    rows = []
    for space, points, own in (
        ("residuals", concept.residuals[chosen], dict.fromkeys(of_sae, math.nan)),
        ("latents", to_dense(sae.effective_latents(found)).float(), of_sae),
    ):
        about: dict[str, Any] = {"concept": concept.concept, "space": space}
        rows.append(about | sizes | _figures(points, labels) | own)
    return rows


def _figures(points: Tensor, labels: Tensor) -> dict[str, float]:
    # an exact sketch: all directions of the points and their mean
    exact: dict[str, Any] = {"sketch_size": len(points) + 1, "center": True} | ALONE
    own: dict[str, Any] = {
        "rank": metrics.NumericalRank(**exact),
        "stable_rank": metrics.StableRank(**exact),
        "participation_ratio": metrics.ParticipationRatio(**exact),
        "effective_rank": metrics.EffectiveRank(**exact),
        "dimension": metrics.TwoNN(**ALONE),
        "relative_aedp": metrics.RelativeAEDP(**ALONE),
        "fisher_ratio": metrics.FisherRatio(**ALONE),
    }
    collection = MetricCollection(own)
    collection.update(points.cpu(), labels=labels)
    found = collection.compute()
    return {name: float(found[name]) for name in own}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return str(value)
