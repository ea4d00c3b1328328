"""Metrics whose figures may be undefined, and then say why."""

import re
from typing import ClassVar

import torch
from torch import Tensor

from saerepgeo.metrics.geometry_metric import GeometryMetric
from saerepgeo.types import Estimate


class EstimateMetric(GeometryMetric):
    """A metric that computes an `Estimate` out of its states.

    `compute()` returns the value alone, a float64 scalar that can be logged and plotted, over all
    processes. Where it is NaN the attribute `reason` says why. `estimate()` returns value, counts
    and reason of the points that this process has seen.
    """

    stem: ClassVar[str]
    """Name of the figure in tables and logged keys; by default the class's name in snake case."""
    title: ClassVar[str]
    """Its name in figures."""
    reason: str | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "stem" not in cls.__dict__:
            cls.stem = snake_case(cls.__name__)
        if "title" not in cls.__dict__:
            cls.title = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", cls.__name__)

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


def snake_case(name: str) -> str:
    """Return the name of a class as a key.

    >>> snake_case("RelativeAEDP"), snake_case("TwoNNWithin")
    ('relative_aedp', 'two_nn_within')
    """
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return parts.lower()


def ratio(total: Tensor, by: Tensor, n_points: Tensor, reason: str = "no points") -> Estimate:
    """Return total/by; undefined for `reason` where `by` is 0."""
    if not by:
        return Estimate.undefined(reason, int(n_points))
    return Estimate(total.double() / by.double(), int(n_points), 0)
