"""What the data module hands to Lightning besides the training stream."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from saerepgeo.types import ActivationBatch, AnalysisBatch, ConceptActivations


class ResidualStatistics(NamedTuple):
    """First moments of the background residuals, from the first LM call of the stream."""

    mean: Tensor
    """`[d_model]`"""
    variance: Tensor
    """E‖x − mean‖², the total variance."""
    mean_square: Tensor
    """E‖x‖²."""


def residual_statistics(points: Tensor) -> ResidualStatistics:
    """Return the moments of points `[point, d_model]`."""
    x = points.double()
    mean = x.mean(0)
    variance = (x - mean).square().sum(1).mean()
    return ResidualStatistics(mean.float(), variance.float(), x.square().sum(1).mean().float())


class Batches:
    """The points of one `ActivationBatch`, `size` at a time.

    Args:
        n_points: how many there are taken to be, so that processes with a point more or less give
            equally many batches; the last may be empty. By default as many as there are.
    """

    def __init__(self, points: ActivationBatch, size: int, n_points: int | None = None) -> None:
        self.points, self.size = points, size
        self.n_points = len(points.labels) if n_points is None else n_points

    def __iter__(self) -> Iterator[ActivationBatch]:
        for start in range(0, self.n_points, self.size):
            rows = slice(start, start + self.size)
            yield ActivationBatch(*(column[rows] for column in self.points))


class Concepts:
    """Concepts by name, each loaded when it is reached.

    Args:
        parts: of the work on a concept: it is given once for each, as `AnalysisBatch`; without any
            as it is.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Callable[[str], ConceptActivations],
        parts: Sequence[str] = (),
    ) -> None:
        self.names, self.load, self.parts = names, load, parts

    def __len__(self) -> int:
        return len(self.names) * (len(self.parts) or 1)

    def __iter__(self) -> Iterator[ConceptActivations | AnalysisBatch]:
        for name in self.names:
            concept = self.load(name)
            if not self.parts:
                yield concept
            yield from (AnalysisBatch(concept, part) for part in self.parts)
