"""The figures of a validation: reconstruction of held-out text, separability of held-out points."""

import warnings
from typing import Any

from torch import Tensor, nn
from torchmetrics import MetricCollection

from saerepgeo.data.prompts import ConceptPrompts
from saerepgeo.metrics import (
    L0,
    AverageEuclideanDistance,
    CosineSimilarity,
    DeadFraction,
    FisherRatio,
    FractionVarianceUnexplained,
    MeanSquaredError,
    RelativeAEDP,
    RelativeReconstructionBias,
)
from saerepgeo.types import ActivationBatch, SAEOutput, SparseLatents

SEPARABILITY = {
    "aedp": AverageEuclideanDistance,
    "relative_aedp": RelativeAEDP,
    "fisher_ratio": FisherRatio,
}
POINT_SETS = {1: "val", 2: "val/heldout_items"}
"""Key prefix of the labeled dataloaders, by `dataloader_idx` (see `data.VALIDATION_LOADERS`)."""


class ValidationFigures(nn.Module):
    """Accumulate held-out batches; give `{key: value}` over all of them and all processes.

    `val/mse`, `val/fvu`, … are of held-out text. `val/aedp/months` is of effective latents at
    held-out prompts of the training items, `val/aedp` its mean over concepts;
    `val/heldout_items/…` of the items that training never saw.
    """

    def __init__(self, prompts: ConceptPrompts, d_sae: int) -> None:
        super().__init__()
        self.recons = MetricCollection(
            {
                "mse": MeanSquaredError(),
                "fvu": FractionVarianceUnexplained(),
                "cosine": CosineSimilarity(),
                "relative_reconstruction_bias": RelativeReconstructionBias(),
            },
            prefix="val/",
        )
        self.latents = MetricCollection(
            {"l0": L0(), "dead_fraction": DeadFraction(d_sae)}, prefix="val/"
        )
        self.points: Any = nn.ModuleDict()
        for loader, prefix in POINT_SETS.items():
            self.points[str(loader)] = MetricCollection(
                {
                    f"{name}/{concept.name}": metric(
                        prompts.n_items, range(first, first + len(concept.items))
                    )
                    for concept, first in zip(prompts, prompts.first_item_ids, strict=True)
                    for name, metric in SEPARABILITY.items()
                },
                prefix=f"{prefix}/",
            )

    def add_text(self, residuals: Tensor, out: SAEOutput) -> None:
        """Add points of held-out text."""
        self.recons.update(out.recons.float(), residuals)
        self.latents.update(out.latents)

    def add_points(
        self, loader: int, effective: Tensor | SparseLatents, batch: ActivationBatch
    ) -> None:
        """Add labeled points of a dataloader, as effective latents `[point, d_sae]`."""
        self.points[str(loader)].update(effective, batch.labels)

    def compute(self) -> dict[str, Tensor]:
        """Return every figure that is defined, over all processes."""
        figures = {**self.recons.compute(), **self.latents.compute()}
        for loader, prefix in POINT_SETS.items():
            collection = self.points[str(loader)]
            with warnings.catch_warnings():  # no held-out items: undefined, and left out
                warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
                values = {k: v for k, v in collection.compute().items() if not v.isnan()}
            figures |= values
            for name in SEPARABILITY:
                of_name = [v for k, v in values.items() if k.startswith(f"{prefix}/{name}/")]
                if of_name:
                    figures[f"{prefix}/{name}"] = sum(of_name) / len(of_name)
        return {key: value for key, value in figures.items() if not value.isnan()}

    def reset(self) -> None:
        """Forget all points."""
        for collection in (self.recons, self.latents, *self.points.values()):
            collection.reset()
