"""What all metric classes share: states that keep their precision, and merging of uneven states."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors


class GeometryMetric(Metric):
    """A metric whose states move between devices but keep their dtype.

    Sums in float64 and points in float32 are what makes the figures right. A module cast by
    `.to(torch.bfloat16)` casts its metrics too, and torchmetrics guards against `.half()` but not
    against `.to(dtype)`.
    """

    is_differentiable = False
    full_state_update = False

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        def move(x: Tensor) -> Tensor:
            moved = fn(x)
            return moved if moved.dtype == x.dtype else x.to(moved.device)

        return super()._apply(move, exclude_state)

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value, or several as a curve; return figure and axes."""
        return self._plot(val, ax)


class MergedStateMetric(GeometryMetric):
    """A metric whose states join by `merge`, not by a sum: sketches and samples.

    The tensors may differ in size between processes; a process that has seen no point takes part
    with empty ones, so that no process waits for another. Every process merges the same list in
    order of rank and gets the same state.
    """

    def add_settings(self, *settings: Any) -> None:
        """Make a state of what a metric was made with, which stays as it is.

        Metrics of other settings then never form one compute group, however equal their first
        batch; as bytes, for torchmetrics takes close numbers for equal ones.
        """
        self.add_state("settings", torch.tensor(list(repr(settings).encode())))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Join states of several processes or batches, in order, into one."""
        raise NotImplementedError

    def _sync_dist(
        self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        group = process_group or self.process_group
        parts = {name: dist_sync_fn(getattr(self, name), group=group) for name in self._state()}
        n_processes = len(next(iter(parts.values())))
        self._set(self.merge([{k: v[i] for k, v in parts.items()} for i in range(n_processes)]))

    def _reduce_states(self, incoming_state: dict[str, Tensor]) -> None:
        incoming = {name: incoming_state[name] for name in self._state()}
        self._set(self.merge([incoming, self._state()]))

    def _state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._defaults if name != "settings"}

    def _set(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
