"""What the data module hands to Lightning besides the training stream."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from saerepgeo.types import ActivationBatch, ConceptActivations


class ResidualStatistics(NamedTuple):
    """First moments of the background residuals, from the first LM call of the stream."""

    mean: Tensor
    """`[d_model]`"""
    variance: Tensor
    """E‖x − mean‖², the total variance."""
    mean_square: Tensor
    """E‖x‖²."""


class Batches:
    """The points of one `ActivationBatch`, `size` at a time."""

    def __init__(self, points: ActivationBatch, size: int) -> None:
        self.points, self.size = points, size

    def __iter__(self) -> Iterator[ActivationBatch]:
        for start in range(0, len(self.points.labels), self.size):
            rows = slice(start, start + self.size)
            yield ActivationBatch(*(column[rows] for column in self.points))


class Concepts:
    """Concepts by name, each loaded when it is reached."""

    def __init__(self, names: Sequence[str], load: Callable[[str], ConceptActivations]) -> None:
        self.names, self.load = names, load

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[ConceptActivations]:
        for name in self.names:
            yield self.load(name)
