"""The training stream: endless batches, each a pure function of (seed, step), whoever computes it.

A step's global batch is laid out in `n_lanes` equal lanes. Each lane shuffles its own contexts
within a window of steps, and is filled by LM calls of fixed shape; a process owns whole lanes.
So the same points are computed from the same calls whatever the number of processes or workers,
no context is read twice or left out, and a run resumed at a step sees what it would have seen.
Several hooks are read in one pass; the batches of each are those of a stream of that hook alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saerepgeo.data.concepts import draw_balanced, points_at
from saerepgeo.data.contexts import Contexts
from saerepgeo.data.statistics import PointsByHook, ResidualStatistics, residual_statistics
from saerepgeo.types import BACKGROUND, ActivationBatch, generator_for

MOST_CONTEXTS = 4096
"""Contexts read at most for the residuals' moments."""
MOST_DEVICES = 4096
"""Up to this number one that fits is looked for where the devices told do not."""
Call = tuple[int, int, int]
"""One run of the LM: (window, lane, number within the lane)."""


@dataclass(frozen=True)
class StreamPlan:
    """Who computes which points when; integers only.

    A step has `batch_size` points over all processes, of which `n_concept` are labeled. Background
    points of `window_steps` steps are shuffled together. An LM call has `lm_batch_size` contexts at
    most. Raises ValueError where sizes do not divide: lanes by processes, points by lanes.
    """

    batch_size: int
    n_concept: int
    window_steps: int
    context_size: int
    lm_batch_size: int
    n_lanes: int
    rank: int
    world_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.n_lanes % self.world_size:
            most = min(self.world_size, self.n_lanes, MOST_DEVICES)
            fewer = max(n for n in range(1, most + 1) if self.n_lanes % n == 0)
            n_lanes = -(-self.n_lanes // self.world_size) * self.world_size
            n_points = max(1, self.batch_size // n_lanes) * n_lanes
            raise ValueError(
                f"the number of devices must divide `n_lanes` = {self.n_lanes}, got "
                f"{self.world_size}: set `trainer.devices` to {fewer}, or `n_lanes` to "
                f"{n_lanes} and `batch_size` to {n_points}"
            )
        for name, value in (("batch_size", self.batch_size), ("n_concept", self.n_concept)):
            if value % self.n_lanes:
                lanes = f"`n_lanes` = {self.n_lanes}"
                raise ValueError(f"`{name}` must be a multiple of {lanes}, got {value}")
        if self.n_concept > self.batch_size:
            raise ValueError(f"`n_concept` must be at most `batch_size`, got {self.n_concept}")

    @property
    def lanes(self) -> range:
        """The lanes of this process."""
        per_process = self.n_lanes // self.world_size
        return range(self.rank * per_process, (self.rank + 1) * per_process)

    @property
    def n_labeled(self) -> int:
        """Labeled points of this process in one step, which come before the others."""
        return self.n_concept // self.world_size

    @property
    def background_per_lane(self) -> int:
        """Background points of a lane in one step."""
        return (self.batch_size - self.n_concept) // self.n_lanes

    @property
    def contexts_per_lane(self) -> int:
        """Contexts of a lane in one window: as many as its points need."""
        return -(-self.background_per_lane * self.window_steps // (self.context_size - 1))

    def calls(self, window: int) -> list[Call]:
        """Return the LM calls that fill this process's lanes of `window`."""
        per_lane = -(-self.contexts_per_lane // self.lm_batch_size)
        return [(window, lane, number) for lane in self.lanes for number in range(per_lane)]

    def context_numbers(self, call: Call) -> range:
        """Return the running numbers of the contexts of `call`; together they leave no gap."""
        window, lane, number = call
        first = (window * self.n_lanes + lane) * self.contexts_per_lane
        start = first + number * self.lm_batch_size
        return range(start, min(start + self.lm_batch_size, first + self.contexts_per_lane))


class CallTokens(Dataset[Tensor]):
    """A `Call` → its tokens `[context, position]`; contexts are reshuffled each epoch."""

    def __init__(self, contexts: Contexts, plan: StreamPlan) -> None:
        self.contexts, self.plan = contexts, plan
        self._epoch, self._order = -1, torch.empty(0)

    def __getitem__(self, call: Call) -> Tensor:
        numbers, n = self.plan.context_numbers(call), self.contexts.n_contexts
        if n is None:
            return self.contexts.read(numbers)
        return self.contexts.read([self._shuffled(*divmod(number, n), n) for number in numbers])

    def _shuffled(self, epoch: int, index: int, n: int) -> int:
        if self._epoch != epoch:
            generator = generator_for(self.plan.seed, "contexts", epoch)
            self._epoch, self._order = epoch, torch.randperm(n, generator=generator)
        return int(self._order[index])


@dataclass(eq=False)
class ActivationStream:
    """Iterate over the `ActivationBatch`es of this process, by hook, from `first_step` on, endless.

    The next window is filled piecewise while the steps of this one are consumed. `points_of` maps
    tokens `[context, position]` to real points `[point, d_model]` by hook; `contexts` are
    background text, None where batches hold only concept points, drawn from `labeled`: by hook the
    same prompts, on the device of the batches. `n_tokens` counts tokens whose points were asked for
    so far.
    """

    plan: StreamPlan
    points_of: Callable[[Tensor], PointsByHook]
    contexts: Contexts | None
    labeled: dict[str, ActivationBatch]
    first_step: int = 0
    n_workers: int = 0
    n_tokens: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        labels = next(iter(self.labeled.values())).labels
        if self.plan.n_concept and not len(labels):
            raise ValueError("`concept_fraction` > 0 needs concept points, got none; set it to 0")
        self._labels = labels.cpu()  # the draw is the host's, the same on any device

    def __iter__(self) -> Iterator[dict[str, ActivationBatch]]:
        size = self.plan.window_steps
        number, slot = divmod(self.first_step, size)
        n_calls = len(self.plan.calls(number))
        calls = self._calls_from(number)
        window = self._window(number, [self._run(next(calls)) for _ in range(n_calls)])
        while True:
            upcoming: list[PointsByHook] = []
            n_slots = size - slot
            for used, position in enumerate(range(slot, size), start=1):
                rows = self._labeled_rows(number * size + position)
                yield {hook: self._batch(hook, rows, position, window[hook]) for hook in window}
                due = n_calls * used // n_slots - len(upcoming)
                upcoming += [self._run(next(calls)) for _ in range(due)]
            number, slot = number + 1, 0
            window = self._window(number, upcoming)

    def statistics(self) -> dict[str, ResidualStatistics]:
        """Return by hook the moments over the stream's first LM calls: the same on every process.

        As many as it takes, if one epoch is enough. Where there is no background, of the labeled
        points, each a unit.
        """
        return residual_statistics(self._first_points())

    def _first_points(self) -> Iterator[tuple[PointsByHook, int]]:
        """Yield the points of one LM call after the other and the number of its contexts."""
        if self.contexts is None:
            points = {hook: labeled.residuals for hook, labeled in self.labeled.items()}
            yield points, len(self._labels)
            return
        contexts = CallTokens(self.contexts, self.plan)
        whole = replace(self.plan, rank=0, world_size=1)
        n_left = min(MOST_CONTEXTS, self.contexts.n_contexts or MOST_CONTEXTS)
        for call in (call for window in count() for call in whole.calls(window)):
            tokens = contexts[call]
            yield self._run(tokens), len(tokens)
            n_left -= len(tokens)
            if n_left <= 0:
                return

    def _calls_from(self, first: int) -> Iterator[Tensor]:
        """Return the tokens of the calls of this process, window after window."""
        if not self.plan.background_per_lane:
            return iter(())
        assert self.contexts is not None
        loader: Any = DataLoader(
            CallTokens(self.contexts, self.plan),
            batch_size=None,
            sampler=(call for window in count(first) for call in self.plan.calls(window)),
            num_workers=self.n_workers,
        )
        return iter(loader)

    def _run(self, tokens: Tensor) -> PointsByHook:
        """Return the real points `[point, d_model]` of one LM call."""
        self.n_tokens += tokens.numel()
        return self.points_of(tokens)

    def _window(self, number: int, points: list[PointsByHook]) -> dict[str, list[Tensor]]:
        """Return by hook, for each own lane, its points of a window in their shuffled order."""
        return {hook: self._lanes(number, [x[hook] for x in points]) for hook in self.labeled}

    def _lanes(self, window: int, points: list[Tensor]) -> list[Tensor]:
        lanes, per_lane = [], len(points) // len(self.plan.lanes)
        needed = self.plan.background_per_lane * self.plan.window_steps
        for index, lane in enumerate(self.plan.lanes if points else ()):
            pool = torch.cat(points[index * per_lane : (index + 1) * per_lane])
            if not len(pool):
                raise ValueError("a window of text has no real positions; check the text source")
            generator = generator_for(self.plan.seed, "shuffle", window, lane)
            order = torch.randperm(len(pool), generator=generator)
            order = order[torch.arange(needed) % len(pool)]  # a few come twice where sinks fell out
            lanes.append(pool[order.to(pool.device, non_blocking=True)])
        return lanes

    def _labeled_rows(self, step: int) -> Tensor:
        """Return which labeled points this process takes in a step."""
        plan = self.plan
        if not plan.n_concept:
            return torch.zeros(0, dtype=torch.long)
        generator = generator_for(plan.seed, "concept points", step)
        rows = draw_balanced(self._labels, plan.n_concept, generator)
        return rows.chunk(plan.world_size)[plan.rank]

    def _batch(self, hook: str, rows: Tensor, slot: int, lanes: list[Tensor]) -> ActivationBatch:
        width, labeled = self.plan.background_per_lane, self.labeled[hook]
        background = [lane[slot * width : (slot + 1) * width] for lane in lanes]
        device = labeled.residuals.device
        chosen = points_at(labeled, rows.to(device, non_blocking=True))
        residuals = torch.cat([chosen.residuals, *background]).float()
        ids = torch.full((2, len(residuals)), BACKGROUND, device=device)
        ids[:, : len(rows)] = torch.stack([chosen.labels, chosen.concepts])
        return ActivationBatch(residuals, *ids)
