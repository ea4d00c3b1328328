"""How well an SAE reconstructs the residuals: error, direction and bias.

Every figure is a ratio of float64 sums over points, formed at the end: an epoch figure is never a
mean of batch figures. All refuse integer and non-finite input with a ValueError, for a
reconstruction that has diverged is not an outlier to average away.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.metrics.estimates import EstimateMetric, ratio
from saerepgeo.metrics.geometry_metric import MergedStateMetric
from saerepgeo.types import Estimate, Float


class MeanSquaredError(EstimateMetric):
    """Mean over points of ‖x̂ − x‖², the sum over d_model; or of its mean over d_model.

    mse = (1/N) Σ_p Σ_i (x̂_pi − x_pi)², in squared residual units. Accumulates the sum of squares,
    the points and the elements; they add up over batches and processes. No points: undefined.

    Args:
        per_element: divide by N·d_model instead of N.

    >>> metric = MeanSquaredError()
    >>> metric.update(torch.zeros(2, 3), torch.ones(2, 3))
    >>> metric.compute().item()
    3.0
    """

    higher_is_better = False
    squared_error: Tensor
    n_points: Tensor
    n_elements: Tensor

    def __init__(self, per_element: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.per_element = per_element
        self.add_sum("squared_error")
        self.add_count("n_points")
        self.add_count("n_elements")

    def update(
        self, recons: Float[Tensor, "point d_model"], residuals: Float[Tensor, "point d_model"]
    ) -> None:
        """Add points."""
        recons, residuals = _checked_pair(recons, residuals)
        self.squared_error += (recons - residuals).square().sum()
        self.n_points += len(residuals)
        self.n_elements += residuals.numel()

    def estimate(self) -> Estimate:
        """Return the error with the number of points."""
        n = self.n_elements if self.per_element else self.n_points
        return ratio(self.squared_error, n, self.n_points)


class FractionVarianceUnexplained(EstimateMetric, MergedStateMetric):
    """Share of the residuals' variance that the reconstruction leaves unexplained.

    fvu = Σ_p ‖x̂_p − x_p‖² / Σ_p ‖x_p − μ‖², μ the mean of all points of all batches and processes
    (not of each batch, which makes the share of small batches too large). 0 for a perfect
    reconstruction, 1 for the mean itself. Points, mean and scatter about it are merged pairwise,
    which loses no digits where the mean is large against the spread.

    No points, or points that are all equal (one point, too): undefined.

    Source: the merging is Chan, Golub & LeVeque (1983).

    >>> metric = FractionVarianceUnexplained()
    >>> residuals = torch.tensor([[0.0], [2.0], [4.0]])
    >>> metric.update(residuals + 1, residuals)
    >>> metric.compute().item()
    0.375
    """

    higher_is_better = False
    n_points: Tensor
    squared_error: Tensor
    mean: Tensor
    scatter: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("n_points", torch.tensor(0), dist_reduce_fx=None)
        self.add_state("squared_error", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("mean", torch.zeros(0, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("scatter", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx=None)

    def update(
        self, recons: Float[Tensor, "point d_model"], residuals: Float[Tensor, "point d_model"]
    ) -> None:
        """Add points."""
        recons, residuals = _checked_pair(recons, residuals)
        if not len(residuals):
            return
        mean = residuals.mean(0)
        batch = {
            "n_points": self.n_points.new_tensor(len(residuals)),
            "squared_error": (recons - residuals).square().sum(),
            "mean": mean,
            "scatter": (residuals - mean).square().sum(),
        }
        self._set(self.merge([{name: getattr(self, name) for name in batch}, batch]))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Join counts, means and scatters, the scatter of the means among themselves included."""
        merged = states[0]
        for state in states[1:]:
            if not state["n_points"]:
                continue
            if not merged["n_points"]:
                merged = state
                continue
            n = merged["n_points"] + state["n_points"]
            share = state["n_points"].double() / n
            gap = state["mean"] - merged["mean"]
            merged = {
                "n_points": n,
                "squared_error": merged["squared_error"] + state["squared_error"],
                "mean": merged["mean"] + share * gap,
                "scatter": merged["scatter"]
                + state["scatter"]
                + merged["n_points"] * share * gap.square().sum(),
            }
        return merged

    def estimate(self) -> Estimate:
        """Return the share with the number of points."""
        if not self.n_points:
            return Estimate.undefined("no points")
        rounding = 1e-28 * self.n_points * self.mean.square().sum()
        if not self.scatter > rounding:
            return Estimate.undefined("all residuals are equal: no variance", int(self.n_points))
        return Estimate(self.squared_error / self.scatter, int(self.n_points), 0)


class CosineSimilarity(EstimateMetric):
    """Mean over points of the cosine ⟨x, x̂⟩/(‖x‖‖x̂‖) between residual and reconstruction.

    A reconstruction of 0 has cosine 0. A residual of 0 has no direction to recover: it is left out
    and counted in `n_dropped`. No points left: undefined. Accumulates sum and counts.

    >>> metric = CosineSimilarity()
    >>> recons = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    >>> metric.update(recons, residuals=torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> round(metric.compute().item(), 4)  # of 1 and 1/√2
    0.8536
    """

    higher_is_better = True
    total: Tensor
    n_points: Tensor
    n_dropped: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("total")
        self.add_count("n_points")
        self.add_count("n_dropped")

    def update(
        self, recons: Float[Tensor, "point d_model"], residuals: Float[Tensor, "point d_model"]
    ) -> None:
        """Add points."""
        recons, residuals = _checked_pair(recons, residuals)
        has_direction = residuals.abs().sum(1) > 0
        directions, targets = (_unit_rows(rows[has_direction]) for rows in (recons, residuals))
        self.total += (directions * targets).sum()
        self.n_points += len(targets)
        self.n_dropped += len(residuals) - len(targets)

    def estimate(self) -> Estimate:
        """Return the mean cosine with the counts."""
        n, reason = self.n_points, "no points off the origin"
        return ratio(self.total, n, n, reason)._replace(n_dropped=int(self.n_dropped))


class RelativeReconstructionBias(EstimateMetric):
    """Whether reconstructions are too short or too long: γ = E‖x̂‖²/E⟨x, x̂⟩.

    x̂/γ is the rescaling of least squared error: γ < 1 means shrinkage, 1 no bias. Accumulates both
    sums. Undefined without points and where E⟨x, x̂⟩ is 0.

    Source: Rajamanoharan et al. (2024), *Improving dictionary learning with gated sparse
    autoencoders*.

    >>> metric = RelativeReconstructionBias()
    >>> metric.update(0.5 * torch.eye(3), torch.eye(3))
    >>> metric.compute().item()
    0.5
    """

    squared_norm: Tensor
    product: Tensor
    n_points: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("squared_norm")
        self.add_sum("product")
        self.add_count("n_points")

    def update(
        self, recons: Float[Tensor, "point d_model"], residuals: Float[Tensor, "point d_model"]
    ) -> None:
        """Add points."""
        recons, residuals = _checked_pair(recons, residuals)
        self.squared_norm += recons.square().sum()
        self.product += (recons * residuals).sum()
        self.n_points += len(residuals)

    def estimate(self) -> Estimate:
        """Return γ with the number of points."""
        reason = "reconstructions are orthogonal to residuals" if self.n_points else "no points"
        return ratio(self.squared_norm, self.product, self.n_points, reason)


def _unit_rows(rows: Tensor) -> Tensor:
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)


def _checked_pair(recons: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    if recons.shape != residuals.shape:
        raise ValueError(
            "`recons` and `residuals` must have one shape [point, d_model], got "
            f"{tuple(recons.shape)} and {tuple(residuals.shape)}."
        )
    return as_float64(recons.detach(), "recons"), as_float64(residuals.detach(), "residuals")
