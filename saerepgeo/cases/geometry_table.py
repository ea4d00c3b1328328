"""From a model and an SAE to a table of the geometry of each concept, in one call."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from saerepgeo.cases.concept_points import distinct_points
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.metrics import (
    L0,
    EffectiveRank,
    FisherRatio,
    FractionVarianceUnexplained,
    NumericalRank,
    ParticipationRatio,
    RelativeAEDP,
    StableRank,
    TwoNN,
)
from saerepgeo.sae.agreement import check_agreement
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import to_dense

SPECTRUM = {
    "rank": NumericalRank,
    "stable_rank": StableRank,
    "participation_ratio": ParticipationRatio,
    "effective_rank": EffectiveRank,
}
OF_POINTS = {"dimension": TwoNN, "relative_aedp": RelativeAEDP, "fisher_ratio": FisherRatio}


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
        names = list(self.rows[0])
        cells = [names, *([_shown(row[name]) for name in names] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(
                text.ljust(width) if index < 2 else text.rjust(width)
                for index, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        )


@torch.no_grad()
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
        rows = [row for name in data.prompts.names for row in _rows(data, name, sae)]
    finally:
        sae.train(was_training)
    return GeometryTable(rows)


def _rows(data: ActivationDataModule, name: str, sae: SAEModel) -> list[dict[str, Any]]:
    concept, out = data.concept(name), sae.hook_name_out
    outputs = concept if out is None else data.concept(name, hook_name=out)
    seen = distinct_points(concept)
    is_mention = seen.labels >= 0
    labels = seen.labels[is_mention]
    chosen = torch.zeros_like(concept.is_real)
    chosen[seen.prompts[is_mention], seen.positions[is_mention]] = True
    device = sae.sae.W_dec.device
    found, normalization = sae.encode_prompts(concept.residuals.to(device), chosen.to(device))
    fvu, l0 = FractionVarianceUnexplained(), L0()
    fvu.update(sae.decode(found, normalization).float().cpu(), outputs.residuals[chosen].cpu())
    l0.update(found)
    latents = to_dense(sae.effective_latents(found)).float()
    about = {"concept": concept.concept, "points": len(labels), "items": len(labels.unique())}
    of_sae = {"fvu": float(fvu.compute()), "l0": float(l0.compute())}
    spaces = (
        ("residuals", concept.residuals[chosen], dict.fromkeys(of_sae, math.nan)),
        ("latents", latents, of_sae),
    )
    return [
        {"concept": about["concept"], "space": space} | about | _figures(points, labels) | own
        for space, points, own in spaces
    ]


def _figures(points: Tensor, labels: Tensor) -> dict[str, float]:
    all_directions = len(points) + 1  # of the points and their mean: an exact sketch
    metrics: dict[str, Any] = {
        name: metric(sketch_size=all_directions, center=True) for name, metric in SPECTRUM.items()
    }
    metrics |= {name: metric() for name, metric in OF_POINTS.items()}
    collection = MetricCollection(metrics)
    collection.update(points.cpu(), labels=labels)
    found = collection.compute()
    return {name: float(found[name]) for name in metrics}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return str(value)
