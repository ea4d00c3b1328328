"""How well an SAE reconstructs the residuals: error, direction and bias."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.geometry.clouds.entries import check_squares
from saerepgeo.metrics.geometry_metric import Count, EstimateMetric, FloatSum, MergedStateMetric
from saerepgeo.types import Estimate, Float

HALF_OCTAVES = 128
"""Squared norms from 2⁻⁶⁴ to 2⁶⁴ are told apart by powers of 2."""
TRIMMED_SHARE = 0.01
"""Points of largest norm that a trimmed figure may leave out."""


class ReconstructionMetric(EstimateMetric):
    """A ratio of float64 sums over points, formed at the end; no points: undefined.

    Unequal shapes, integer and non-finite input raise ValueError.
    """

    add: Callable[[Tensor, Tensor], None]
    """Add checked reconstructions and residuals, in float64."""
    n_points: Count

    def update(
        self, recons: Float[Tensor, "point d_model"], residuals: Float[Tensor, "point d_model"]
    ) -> None:
        if recons.shape != residuals.shape:
            shapes = f"{tuple(recons.shape)} and {tuple(residuals.shape)}"
            raise ValueError(
                f"`recons` and `residuals` must have one shape [point, d_model], got {shapes}."
            )
        x = as_float64(residuals.detach(), "residuals")
        self.add(as_float64(recons.detach(), "recons"), x)


class MeanSquaredError(ReconstructionMetric):
    """Mean over points of ‖x̂ − x‖², or of its mean over d_model where `per_element`.

    mse = (1/N) Σ_p Σ_i (x̂_pi − x_pi)², in squared residual units.

    >>> metric = MeanSquaredError()
    >>> metric.update(torch.zeros(2, 3), torch.ones(2, 3))
    >>> metric.compute().item()
    3.0
    """

    higher_is_better = False
    squared_error: FloatSum
    n_elements: Count

    def __init__(self, per_element: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.per_element = per_element

    def add(self, recons: Tensor, residuals: Tensor) -> None:
        check_squares(recons, residuals, name="residuals")
        self.squared_error += (recons - residuals).square().sum()
        self.n_points += len(residuals)
        self.n_elements += residuals.numel()

    def estimate(self) -> Estimate:
        n = self.n_elements if self.per_element else self.n_points
        return self.ratio(self.squared_error, n, self.n_points)


class FractionVarianceUnexplained(ReconstructionMetric, MergedStateMetric):
    """Share of the residuals' variance that the reconstruction leaves unexplained.

    fvu = Σ_p ‖x̂_p − x_p‖² / Σ_p ‖x_p − μ‖², μ the mean of all points of all batches and processes:
    0 for a perfect reconstruction, 1 for the mean itself. Points that are all equal: undefined.
    Moments are merged pairwise, which loses no digits (Chan, Golub & LeVeque 1983).

    >>> metric = FractionVarianceUnexplained()
    >>> residuals = torch.tensor([[0.0], [2.0], [4.0]])
    >>> metric.update(residuals + 1, residuals)
    >>> metric.compute().item()
    0.375
    """

    higher_is_better = False
    squared_error: FloatSum
    scatter: FloatSum
    mean: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("mean", torch.zeros(0, dtype=torch.float64), dist_reduce_fx=None)

    def add(self, recons: Tensor, residuals: Tensor) -> None:
        check_squares(recons, residuals, name="residuals")
        mean = residuals.mean(0)
        batch = {
            "n_points": self.n_points.new_tensor(len(residuals)),
            "squared_error": (recons - residuals).square().sum(),
            "mean": mean,
            "scatter": (residuals - mean).square().sum(),
        }
        self._set(self.merge([self._state(), batch]))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        merged, *others = [state for state in states if state["n_points"]] or states[:1]
        for state in others:
            n = merged["n_points"] + state["n_points"]
            share = state["n_points"].double() / n
            gap = state["mean"] - merged["mean"]
            among = merged["n_points"] * share * gap.square().sum()
            merged = {
                "n_points": n,
                "squared_error": merged["squared_error"] + state["squared_error"],
                "mean": merged["mean"] + share * gap,
                "scatter": merged["scatter"] + state["scatter"] + among,
            }
        return merged

    def estimate(self) -> Estimate:
        if not self.n_points:
            return Estimate.undefined("no points")
        rounding = 1e-28 * self.n_points * self.mean.square().sum()
        if not self.scatter > rounding:
            return Estimate.undefined("all residuals are equal: no variance", int(self.n_points))
        return Estimate(self.squared_error / self.scatter, int(self.n_points), 0)


class RobustFVU(ReconstructionMetric, MergedStateMetric):
    """Fraction of variance unexplained without the largest residuals: trimmed by norm.

    Norms ‖x‖ are counted by half octaves; of these the highest are left out as long as they hold a
    hundredth of the points or less. fvu of what is left: a few points that outweigh all others
    change it not at all. Accumulates moments by half octave, which add up. Points left that are all
    equal: undefined.

    >>> metric = RobustFVU()
    >>> residuals = torch.cat([torch.eye(100), 1e4 * torch.eye(100)[:1]])
    >>> metric.update(0.5 * residuals, residuals)
    >>> round(metric.compute().item(), 4)  # 0.25·Σ‖x‖²/Σ‖x − μ‖² of the first hundred
    0.2525
    """

    higher_is_better = False
    counts: Tensor
    squared_errors: Tensor
    squared_norms: Tensor
    totals: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(HALF_OCTAVES, dtype=torch.long), dist_reduce_fx=None)
        for name in ("squared_errors", "squared_norms"):
            zeros = torch.zeros(HALF_OCTAVES, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx=None)
        self.add_state("totals", zeros.reshape(HALF_OCTAVES, 1)[:, :0], dist_reduce_fx=None)

    def add(self, recons: Tensor, residuals: Tensor) -> None:
        check_squares(recons, residuals, name="residuals")
        squares = residuals.square().sum(1)
        octaves = (squares.log2().floor() + HALF_OCTAVES // 2).clamp(0, HALF_OCTAVES - 1).long()
        one_hot = torch.nn.functional.one_hot(octaves, HALF_OCTAVES).T.double()
        batch = {
            "n_points": self.n_points.new_tensor(len(residuals)),
            "counts": torch.bincount(octaves, minlength=HALF_OCTAVES),
            "squared_errors": one_hot @ (recons - residuals).square().sum(1),
            "squared_norms": one_hot @ squares,
            "totals": one_hot @ residuals,
        }
        self._set(self.merge([self._state(), batch]))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        filled = [state for state in states if state["n_points"]] or states[:1]
        return {k: torch.stack([state[k] for state in filled]).sum(0) for k in filled[0]}

    def estimate(self) -> Estimate:
        if not self.n_points:
            return Estimate.undefined("no points")
        above = self.counts.flip(0).cumsum(0).flip(0)
        kept = above > TRIMMED_SHARE * self.n_points
        n, total = self.counts[kept].sum(), self.totals[kept].sum(0)
        squares = self.squared_norms[kept].sum()
        scatter = squares - total.square().sum() / n
        n_used, n_dropped = int(n), int(self.n_points - n)
        if not scatter > 1e-13 * squares:
            return Estimate.undefined("all residuals are equal: no variance", n_used, n_dropped)
        return Estimate(self.squared_errors[kept].sum() / scatter, n_used, n_dropped)


class CosineSimilarity(ReconstructionMetric):
    """Mean over points of the cosine ⟨x, x̂⟩/(‖x‖‖x̂‖) between residual and reconstruction.

    A reconstruction of 0 has cosine 0. A residual of 0 is left out and counted in `n_dropped`.

    >>> metric = CosineSimilarity()
    >>> recons = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    >>> metric.update(recons, residuals=torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> round(metric.compute().item(), 4)  # of 1 and 1/√2
    0.8536
    """

    higher_is_better = True
    total: FloatSum
    n_dropped: Count

    def add(self, recons: Tensor, residuals: Tensor) -> None:
        has_direction = residuals.abs().sum(1) > 0
        directions, targets = (_unit_rows(rows[has_direction]) for rows in (recons, residuals))
        self.total += (directions * targets).sum()
        self.n_points += len(targets)
        self.n_dropped += len(residuals) - len(targets)

    def estimate(self) -> Estimate:
        n, reason = self.n_points, "no points off the origin"
        return self.ratio(self.total, n, n, reason)._replace(n_dropped=int(self.n_dropped))


class RelativeReconstructionBias(ReconstructionMetric):
    """Whether reconstructions are too short or too long: γ = E‖x̂‖²/E⟨x, x̂⟩.

    x̂/γ is the rescaling of least squared error: γ < 1 means shrinkage. Undefined where E⟨x, x̂⟩ is
    0. Source: Rajamanoharan et al. (2024), *Improving dictionary learning with gated sparse
    autoencoders*.

    >>> metric = RelativeReconstructionBias()
    >>> metric.update(0.5 * torch.eye(3), torch.eye(3))
    >>> metric.compute().item()
    0.5
    """

    squared_norm: FloatSum
    product: FloatSum

    def add(self, recons: Tensor, residuals: Tensor) -> None:
        check_squares(recons, residuals, name="residuals")
        self.squared_norm += recons.square().sum()
        self.product += (recons * residuals).sum()
        self.n_points += len(residuals)

    def estimate(self) -> Estimate:
        reason = "reconstructions are orthogonal to residuals" if self.n_points else "no points"
        return self.ratio(self.squared_norm, self.product, self.n_points, reason)


def _unit_rows(rows: Tensor) -> Tensor:
    if not rows.numel():
        return rows
    least = torch.finfo(rows.dtype).tiny
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=least)
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=least)
