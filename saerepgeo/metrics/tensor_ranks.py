"""Ranks by mode of the tensor [prompt, position, feature] that points make up."""

from collections.abc import Sequence
from typing import Any

import torch

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.rank import effective_rank, participation_ratio, stable_rank
from saerepgeo.geometry.unfoldings import MODES, ModeSpectra, Rule, mode_spectra, rank_by_rule
from saerepgeo.metrics.cloud_metric import CloudMetric
from saerepgeo.types import Estimate, to_dense

RELATIVES = (effective_rank, stable_rank, participation_ratio)


class TensorRanks(CloudMetric):
    """Ranks by mode of the tensor [prompt, position, feature] that the points make up.

    Needs `prompts`, which have one number over all batches, and `positions`. Figures are
    `rank/{mode}/{rule}`, `effective_rank/{mode}`, `stable_rank/{mode}` and
    `participation_ratio/{mode}`, undefined where all points are 0, and the sizes they depend on,
    `n_rows/{mode}` and `n_active`.

    Args:
        rules: `eps`, `gavish-donoho`, or a share of the largest singular value.

    >>> metric = TensorRanks(("eps",))
    >>> places = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    >>> metric.update(torch.ones(4, 5), prompts=places[0], positions=places[1])
    >>> metric.compute()["rank/prompt/eps"].item()
    1.0
    """

    is_drawn = False

    def __init__(
        self,
        rules: Sequence[Rule] = ("eps", "gavish-donoho", 0.01),
        max_points: int = 100_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_points, **kwargs)
        self.rules = tuple(rules)

    def figures(self, cloud: LabeledCloud) -> dict[str, Estimate]:
        spectra = self.spectra(cloud)
        n = spectra.n_points
        found = {"n_active": Estimate(torch.tensor(float(spectra.n_active)).double(), n, 0)}
        for mode in MODES:
            values = spectra.values[mode]
            for rule in self.rules:
                rank = values.new_tensor(rank_by_rule(spectra, mode, rule))
                found[f"rank/{mode}/{rule}"] = Estimate(rank, n, 0)
            for relative in RELATIVES:
                found[f"{relative.__name__}/{mode}"] = relative(values)._replace(n_used=n)
            n_rows = values.new_tensor(spectra.shapes[mode][0])
            found[f"n_rows/{mode}"] = Estimate(n_rows, n, 0)
        return found

    @staticmethod
    def spectra(cloud: LabeledCloud) -> ModeSpectra:
        """Return the singular values of the unfoldings, found once for a cloud."""
        dense = to_dense(cloud.points)
        places = cloud.prompts.to(dense.device), cloud.positions.to(dense.device)
        return cloud.found(("spectra",), lambda: mode_spectra(dense, *places))
