"""Batches of one hook: points that are at hand, and those of a stream."""

from collections.abc import Iterator

from saerepgeo.data.concepts import points_at
from saerepgeo.data.stream import ActivationStream
from saerepgeo.types import ActivationBatch

VALIDATION_LOADERS = ("text", "heldout_prompts", "heldout_items")
"""What the validation dataloaders hold, by `dataloader_idx`."""


class Batches:
    """The points of one `ActivationBatch`, `size` at a time.

    As if there were `n_points`: processes with a point more or less give equally many batches.
    """

    def __init__(self, points: ActivationBatch, size: int, n_points: int) -> None:
        self.points, self.size, self.n_points = points, size, n_points

    def __iter__(self) -> Iterator[ActivationBatch]:
        for start in range(0, self.n_points, self.size):
            yield points_at(self.points, slice(start, start + self.size))


class OneHook:
    """The batches of the only hook of a stream."""

    def __init__(self, stream: ActivationStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[ActivationBatch]:
        return (batch for by_hook in self.stream for batch in by_hook.values())
