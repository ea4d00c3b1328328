"""Held-out figures: reconstruction, and separability of labeled points."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

import saerepgeo.metrics as metrics
from saerepgeo.data.prompts import ConceptPrompts
from saerepgeo.types import SAEOutput

SEPARABILITY = {
    "aedp": metrics.AverageEuclideanDistance,
    "relative_aedp": metrics.RelativeAEDP,
    "fisher_ratio": metrics.FisherRatio,
}
POINT_SETS = {1: "val", 2: "val/heldout_items"}
"""Key prefix of the labeled dataloaders of a hook, by number (see `data.batches`)."""
N_LOADERS = 1 + len(POINT_SETS)
"""Of a hook: held-out text comes first."""


class ReconstructionFigures(MetricCollection):
    """Accumulate points and what an SAE makes of them; give mse, fvu, fvu_robust, …."""

    def __init__(self, d_sae: int, prefix: str = "") -> None:
        figures: Any = {
            "mse": metrics.MeanSquaredError(),
            "fvu": metrics.FractionVarianceUnexplained(),
            "fvu_robust": metrics.RobustFVU(),
            "cosine": metrics.CosineSimilarity(),
            "relative_reconstruction_bias": metrics.RelativeReconstructionBias(),
            "l0": metrics.L0(),
            "dead_fraction": metrics.DeadFraction(d_sae),
        }
        super().__init__(figures, prefix=prefix)

    def add(self, residuals: Tensor, out: SAEOutput) -> None:
        """Add points."""
        self.update(recons=out.recons.float(), residuals=residuals, latents=out.latents)


class ValidationFigures(nn.Module):
    """Accumulate held-out batches; give `{key: value}` over all of them and all processes.

    `text` takes points of held-out text for `val/mse`, `val/fvu`, …; `points`, by dataloader,
    effective latents and labels for `val/aedp/months` (held-out prompts of the training items),
    `val/aedp`, its mean over concepts, and `val/heldout_items/…` (items that training never saw).
    """

    def __init__(self, prompts: ConceptPrompts, d_sae: int) -> None:
        super().__init__()
        self.text = ReconstructionFigures(d_sae, "val/")
        self.points: Any = nn.ModuleDict()
        self._names: dict[str, str] = {}
        for loader, prefix in POINT_SETS.items():
            own: Any = {}
            firsts = enumerate(zip(prompts, prompts.first_item_ids, strict=True))
            for number, (concept, first) in firsts:
                items = range(first, first + len(concept.items))
                for name, metric in SEPARABILITY.items():
                    key = f"{name}/{number}"  # no module may have a dot in its name, a concept may
                    own[key] = metric(prompts.n_items, items)
                    self._names[f"{prefix}/{key}"] = f"{prefix}/{name}/{concept.name}"
            self.points[str(loader)] = MetricCollection(own, prefix=f"{prefix}/")

    def compute(self) -> dict[str, Tensor]:
        """Return every figure that is defined, over all processes."""
        figures = self.text.compute()
        for loader, prefix in POINT_SETS.items():
            with warnings.catch_warnings():  # no held-out items: undefined, and left out
                warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
                found = self.points[str(loader)].compute()
            figures |= {self._names[key]: value for key, value in found.items()}
            for name in SEPARABILITY:
                of_name = [v for k, v in figures.items() if k.startswith(f"{prefix}/{name}/")]
                values = [value for value in of_name if not value.isnan()]
                if values:
                    figures[f"{prefix}/{name}"] = torch.stack(values).mean()
        return {key: value for key, value in figures.items() if not value.isnan()}

    def reset(self) -> None:
        """Forget all points."""
        for collection in (self.text, *self.points.values()):
            collection.reset()
