"""A metric whose figure may be undefined, and then says why."""

import torch
from torch import Tensor

from saerepgeo.metrics.geometry_metric import GeometryMetric
from saerepgeo.types import Estimate

__all__ = ["EstimateMetric", "ratio"]


class EstimateMetric(GeometryMetric):
    """A metric that computes an `Estimate` out of its states.

    `compute()` returns the value alone, a float64 scalar that can be logged and plotted, over all
    processes. Where it is NaN the attribute `reason` says why. `estimate()` returns value, counts
    and reason of the points that this process has seen.
    """

    reason: str | None = None

    def add_sum(self, name: str, size: int | None = None) -> None:
        """Make a float64 state that adds up over batches and processes, 0 without points."""
        shape = () if size is None else (size,)
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def add_count(self, name: str, size: int | None = None) -> None:
        """Make an integer state that adds up over batches and processes, 0 without points."""
        shape = () if size is None else (size,)
        self.add_state(name, torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def estimate(self) -> Estimate:
        """Return the figure of the present states with its counts and, if undefined, the reason."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """Return the value over all processes; NaN exactly where `reason` says why."""
        figure = self.estimate()
        self.reason = figure.reason
        return figure.value

    def reset(self) -> None:
        """Forget all points."""
        super().reset()
        self.reason = None


def ratio(total: Tensor, by: Tensor, n_points: Tensor, reason: str = "no points") -> Estimate:
    """Return total/by; undefined for `reason` where `by` is 0."""
    if not by:
        return Estimate.undefined(reason, int(n_points))
    return Estimate(total.double() / by.double(), int(n_points), 0)
