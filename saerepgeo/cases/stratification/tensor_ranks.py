"""Ranks of a tensor [prompt, position, feature] by mode, of which only some positions are real."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.rank import effective_rank, participation_ratio, stable_rank
from saerepgeo.geometry.unfoldings import MODES, ModeSpectra, Rule, mode_spectra, rank_by_rule
from saerepgeo.metrics.geometry_metric import GeometryMetric
from saerepgeo.types import Float, Int

__all__ = ["MODES", "ModeSpectra", "TensorRanks", "mode_spectra", "rank_by_rule"]


class TensorRanks(GeometryMetric):
    """Ranks by mode of the tensor [prompt, position, feature] that the points make up.

    Keeps the points with their places (float32, in the order of processes and batches) and computes
    the spectra of all three unfoldings once. `compute()` maps `rank/{mode}/{rule}`,
    `effective_rank/{mode}`, `stable_rank/{mode}` and `participation_ratio/{mode}` to float64
    scalars, NaN where all points are 0.

    Args:
        rules: see `rank_by_rule`.

    >>> metric = TensorRanks(("eps",))
    >>> metric.update(torch.ones(4, 5), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]))
    >>> metric.compute()["rank/prompt/eps"].item()
    1.0
    """

    points: list[Tensor]
    prompts: list[Tensor]
    positions: list[Tensor]
    spectra: ModeSpectra | None = None

    def __init__(
        self, rules: Sequence[Rule] = ("eps", "gavish-donoho", 0.01), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rules = tuple(rules)
        for name in ("points", "prompts", "positions"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        points: Float[Tensor, "point feature"],
        prompts: Int[Tensor, "point"],
        positions: Int[Tensor, "point"],
    ) -> None:
        """Add points at their places; a prompt has one number over all batches."""
        self.points.append(points)
        self.prompts.append(prompts)
        self.positions.append(positions)

    def compute(self) -> dict[str, Tensor]:
        """Return the figures over all processes; `spectra` then holds what they come from."""
        parts = (self.points, self.prompts, self.positions)
        self.spectra = mode_spectra(*(torch.cat(p) if isinstance(p, list) else p for p in parts))
        figures: dict[str, Tensor] = {}
        for mode in MODES:
            values = self.spectra.values[mode]
            for rule in self.rules:
                rank = rank_by_rule(self.spectra, mode, rule)
                figures[f"rank/{mode}/{rule}"] = values.new_tensor(rank)
            figures[f"effective_rank/{mode}"] = effective_rank(values).value
            figures[f"stable_rank/{mode}"] = stable_rank(values).value
            figures[f"participation_ratio/{mode}"] = participation_ratio(values).value
        return figures
