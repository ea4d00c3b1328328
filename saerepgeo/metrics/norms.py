"""Lengths of residuals and reconstructions, and a mean of ratios that peers have published."""

from typing import Any

from torch import Tensor

from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.geometry.clouds.entries import check_squares
from saerepgeo.metrics.geometry_metric import Count, FloatSum
from saerepgeo.metrics.reconstruction import ReconstructionMetric
from saerepgeo.types import Estimate, Float


class L2Norms(ReconstructionMetric):
    """`l2_norm_in` and `l2_norm_out`: means over points of ‖x‖ and ‖x̂‖, in residual units.

    >>> import torch
    >>> metric = L2Norms()
    >>> metric.update(torch.tensor([[0.0, 2.0]]), residuals=torch.tensor([[3.0, 4.0]]))
    >>> [value.item() for value in metric.compute().values()]
    [5.0, 2.0]
    """

    norms_in: FloatSum
    norms_out: FloatSum

    def add(self, recons: Tensor, residuals: Tensor) -> None:
        check_squares(recons, residuals, name="residuals")
        self.norms_in += residuals.norm(dim=1).sum()
        self.norms_out += recons.norm(dim=1).sum()
        self.n_points += len(residuals)

    def estimates(self) -> dict[str, Estimate]:
        sums, n = {"l2_norm_in": self.norms_in, "l2_norm_out": self.norms_out}, self.n_points
        return {name: self.ratio(total, n, n) for name, total in sums.items()}


class L2Ratio(ReconstructionMetric):
    """Mean over points of ‖x̂‖/‖x‖: below 1 where reconstructions are too short.

    A residual of 0 is left out and counted in `n_dropped`.

    >>> import torch
    >>> metric = L2Ratio()
    >>> metric.update(torch.tensor([[0.0, 2.0]]), residuals=torch.tensor([[3.0, 4.0]]))
    >>> metric.compute().item()
    0.4
    """

    ratios: FloatSum
    n_dropped: Count

    def add(self, recons: Tensor, residuals: Tensor) -> None:
        check_squares(recons, residuals, name="residuals")
        norms = residuals.norm(dim=1)
        is_off = norms > 0
        self.ratios += (recons.norm(dim=1)[is_off] / norms[is_off]).sum()
        self.n_points += is_off.sum()
        self.n_dropped += len(residuals) - is_off.sum()

    def estimate(self) -> Estimate:
        n, reason = self.n_points, "no points off the origin"
        return self.ratio(self.ratios, n, n, reason)._replace(n_dropped=int(self.n_dropped))


class ExplainedVarianceLegacy(ReconstructionMetric):
    """One less the mean over points of ‖x̂_p − x_p‖²/‖x_p − μ‖², for the `mean` μ of all points.

    Not the share of the variance that is explained: a mean of ratios, in which points near the mean
    weigh most. SAEBench published it as explained variance before July 2025 and reports it still;
    `1 − FractionVarianceUnexplained` is the right one. A point on the mean is left out and counted
    in `n_dropped`. Source: SAEBench's pull request 61.

    >>> import torch
    >>> residuals = torch.tensor([[0.0], [1.0], [5.0]])
    >>> metric = ExplainedVarianceLegacy(residuals.mean(0))
    >>> metric.update(residuals + 1, residuals)
    >>> round(metric.compute().item(), 4)  # 1 − (1/4 + 1/1 + 1/9)/3
    0.5463
    """

    higher_is_better = True
    mean: Tensor
    shares: FloatSum
    n_dropped: Count

    def __init__(self, mean: Float[Tensor, "*d_model"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("mean", as_float64(mean.detach().reshape(1, -1), "mean"))

    def add(self, recons: Tensor, residuals: Tensor) -> None:
        check_squares(recons, residuals, name="residuals")
        spread = (residuals - self.mean).square().sum(1)
        is_off = spread > 0
        self.shares += ((recons - residuals).square().sum(1)[is_off] / spread[is_off]).sum()
        self.n_points += is_off.sum()
        self.n_dropped += len(residuals) - is_off.sum()

    def estimate(self) -> Estimate:
        n, dropped = self.n_points, int(self.n_dropped)
        found = self.ratio(n - self.shares, n, n, "no points off their mean")
        return found._replace(n_dropped=dropped)
