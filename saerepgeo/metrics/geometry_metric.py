"""What all metric classes share: states that keep their precision, estimates, uneven states."""

import re
from collections.abc import Callable, Sequence
from inspect import get_annotations
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from saerepgeo.types import Estimate

Values = Tensor | dict[str, Tensor] | Sequence[Tensor] | Sequence[dict[str, Tensor]]
FloatSum = Annotated[Tensor, torch.float64]
Count = Annotated[Tensor, torch.long]
"""A state so annotated is a scalar that adds up over batches and processes, 0 without points."""


class GeometryMetric(Metric):
    """A metric whose states keep their dtype, whatever its module is cast to by `.to(dtype)`."""

    is_differentiable = False
    full_state_update = False

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        def move(x: Tensor) -> Tensor:
            moved = fn(x)
            return moved if moved.dtype == x.dtype else x.to(moved.device)

        return super()._apply(move, exclude_state)

    def plot(self, val: Values | None = None, ax: Any = None) -> Any:
        """Plot one value, or several as a curve; return figure and axes."""
        return self._plot(val, ax)


class EstimateMetric(GeometryMetric):
    """A metric that computes an `Estimate`, or several by name; `reason` says why one is NaN."""

    stem: str
    """Name of the figure in tables and logged keys; by default the class's name in snake case."""
    title: str
    """Its name in figures."""
    reason: str | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "stem" not in cls.__dict__:
            cls.stem = snake_case(cls.__name__)
        if "title" not in cls.__dict__:
            cls.title = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", cls.__name__)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for owner in type(self).__mro__:
            for name, kind in get_annotations(owner).items():
                if kind in (FloatSum, Count):
                    (dtype,) = kind.__metadata__
                    self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def estimate(self) -> Estimate:
        """Return the figure of the present states with its counts and, if undefined, the reason."""
        raise NotImplementedError

    @staticmethod
    def ratio(total: Tensor, by: Tensor, n_points: Tensor, reason: str = "no points") -> Estimate:
        """Return total/by; undefined for `reason` where `by` is 0."""
        if not by:
            return Estimate.undefined(reason, int(n_points))
        return Estimate(total.double() / by.double(), int(n_points), 0)

    def estimates(self) -> dict[str, Estimate]:
        """Return the figures of the present states by name."""
        return {self.stem: self.estimate()}

    def compute(self) -> Any:
        """Return the value over all processes, or several by name; NaN where `reason` says why."""
        found = self.estimates()
        self.reason = next((f.reason for f in found.values() if f.reason is not None), None)
        values = {name: figure.value for name, figure in found.items()}
        return values[self.stem] if list(values) == [self.stem] else values

    def reset(self) -> None:
        super().reset()
        self.reason = None


class MergedStateMetric(GeometryMetric):
    """A metric whose states, of any size, join by `merge` in order of rank."""

    def add_settings(self, *settings: Any) -> None:
        """Make a state of what a metric was made with: other settings, another compute group."""
        # as bytes, for torchmetrics takes close numbers for equal ones
        self.add_state("settings", torch.tensor(list(repr(settings).encode())))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Join states of several processes or batches, in order, into one."""
        raise NotImplementedError

    def _sync_dist(
        self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        group = process_group or self.process_group
        parts = {name: dist_sync_fn(getattr(self, name), group=group) for name in self._state()}
        states = zip(*parts.values(), strict=True)
        self._set(self.merge([dict(zip(parts, state, strict=True)) for state in states]))

    def _reduce_states(self, incoming_state: dict[str, Tensor]) -> None:
        self._set(self.merge([{k: incoming_state[k] for k in self._state()}, self._state()]))

    def _state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._defaults if name != "settings"}

    def _set(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def snake_case(name: str) -> str:
    """Return the name of a class as a key.

    >>> snake_case("RelativeAEDP"), snake_case("TwoNNWithin")
    ('relative_aedp', 'two_nn_within')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
