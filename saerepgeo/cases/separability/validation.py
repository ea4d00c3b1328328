"""Held-out figures: reconstruction, and separability of labeled points."""

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

RECONSTRUCTION = {
    "mse": MeanSquaredError,
    "fvu": FractionVarianceUnexplained,
    "cosine": CosineSimilarity,
    "relative_reconstruction_bias": RelativeReconstructionBias,
}
SEPARABILITY = {
    "aedp": AverageEuclideanDistance,
    "relative_aedp": RelativeAEDP,
    "fisher_ratio": FisherRatio,
}
POINT_SETS = {1: "val", 2: "val/heldout_items"}
"""Key prefix of the labeled dataloaders, by `dataloader_idx` (see `data.VALIDATION_LOADERS`)."""


class ReconstructionFigures(nn.Module):
    """Accumulate points and what an SAE makes of them; give mse, fvu, …, l0 and dead_fraction."""

    def __init__(self, d_sae: int, prefix: str = "") -> None:
        super().__init__()
        recons: Any = {name: metric() for name, metric in RECONSTRUCTION.items()}
        self.recons = MetricCollection(recons, prefix=prefix)
        latents: Any = {"l0": L0(), "dead_fraction": DeadFraction(d_sae)}
        self.latents = MetricCollection(latents, prefix=prefix)

    def add(self, residuals: Tensor, out: SAEOutput) -> None:
        """Add points."""
        self.recons.update(out.recons.float(), residuals)
        self.latents.update(out.latents)

    def compute(self) -> dict[str, Tensor]:
        """Return every figure, over all processes."""
        return {**self.recons.compute(), **self.latents.compute()}

    def reset(self) -> None:
        """Forget all points."""
        self.recons.reset()
        self.latents.reset()


class ValidationFigures(nn.Module):
    """Accumulate held-out batches; give `{key: value}` over all of them and all processes.

    `val/mse`, `val/fvu`, … are of held-out text. `val/aedp/months` is of effective latents at
    held-out prompts of the training items, `val/aedp` its mean over concepts;
    `val/heldout_items/…` of the items that training never saw.
    """

    def __init__(self, prompts: ConceptPrompts, d_sae: int) -> None:
        super().__init__()
        self.text = ReconstructionFigures(d_sae, "val/")
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
        self.text.add(residuals, out)

    def add_points(
        self, loader: int, effective: Tensor | SparseLatents, batch: ActivationBatch
    ) -> None:
        """Add labeled points of a dataloader, as effective latents `[point, d_sae]`."""
        self.points[str(loader)].update(effective, batch.labels)

    def compute(self) -> dict[str, Tensor]:
        """Return every figure that is defined, over all processes."""
        figures = self.text.compute()
        for loader, prefix in POINT_SETS.items():
            with warnings.catch_warnings():  # no held-out items: undefined, and left out
                warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
                computed = self.points[str(loader)].compute()
            values = {key: value for key, value in computed.items() if not value.isnan()}
            figures |= values
            for name in SEPARABILITY:
                of_name = [v for k, v in values.items() if k.startswith(f"{prefix}/{name}/")]
                if of_name:
                    figures[f"{prefix}/{name}"] = sum(of_name) / len(of_name)
        return {key: value for key, value in figures.items() if not value.isnan()}

    def reset(self) -> None:
        """Forget all points."""
        for collection in (self.text, *self.points.values()):
            collection.reset()
