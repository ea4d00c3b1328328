"""Whether two representations of the same points have one shape, over batches and processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.alignment import debiased_cka, procrustes_disparity
from saerepgeo.geometry.checks import as_float64
from saerepgeo.geometry.separation import ClassMoments, centroids, class_moments
from saerepgeo.metrics.estimates import EstimateMetric
from saerepgeo.metrics.geometry_metric import MergedStateMetric
from saerepgeo.metrics.reservoir import PointReservoir
from saerepgeo.metrics.separation import chosen_classes
from saerepgeo.types import Estimate, Float, Int, SparseLatents

__all__ = ["LinearCKA", "ProcrustesDisparity"]


class LinearCKA(PointReservoir):
    """Debiased linear CKA between two representations of the same points.

    See `geometry.debiased_cka`: 1 for one shape, about 0 for independent points. Keeps pairs of
    rows, at most `max_points` of them (see `PointReservoir`), for no sum of batch figures gives the
    figure of the whole. Undefined for fewer than four points and where one side does not vary.

    Bad input raises ValueError: integers, non-finite values, unpaired rows, changing widths.
    """

    higher_is_better = True
    width: Tensor

    def __init__(self, max_points: int = 5_000, **kwargs: Any) -> None:
        super().__init__(max_points, **kwargs)
        self.add_count("width")

    def update(  # type: ignore[override]
        self,
        first: Float[Tensor, "point d_first"] | SparseLatents,
        second: Float[Tensor, "point d_second"] | SparseLatents,
    ) -> None:
        """Add points in both representations."""
        sides = [as_float64(first, "first"), as_float64(second, "second")]
        if len(sides[0]) != len(sides[1]):
            raise ValueError(
                f"`first` and `second` must have paired rows, got {len(sides[0])} and "
                f"{len(sides[1])} points."
            )
        width = sides[0].shape[1]
        if int(self.width) not in (0, width):
            raise ValueError(f"`first` must have {int(self.width)} columns as before, got {width}.")
        super().update(torch.cat(sides, dim=1))
        self.width = self.width.new_tensor(width)

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the sample of the pairs of several samples."""
        widths = torch.stack([state["width"] for state in states if "width" in state])
        return super().merge(states) | {"width": widths.max()}

    def estimate(self) -> Estimate:
        """Return the alignment of the sample; points left out of it count as dropped."""
        width = int(self.width)
        figure = debiased_cka(self.points[:, :width], self.points[:, width:])
        return figure._replace(n_dropped=self.n_left_out)


class ProcrustesDisparity(EstimateMetric, MergedStateMetric):
    """Procrustes disparity between the class centroids of two representations of the same points.

    Accumulates counts and the float64 sums of every class in both spaces, which add up over batches
    and processes. See `geometry.procrustes_disparity`: 0 for two classes whatever they are, and
    small by chance for few; set it beside its permutation null.

    Fewer than two classes with points, or equal centroids in one space: undefined. Classes without
    points are counted in `n_dropped` of `estimate()`. Bad input raises as `geometry.class_moments`.

    Args:
        n_classes: number of class ids; labels of −1 are left out.
        classes: ids the figure is about, e.g. the items of one concept; all by default.
    """

    higher_is_better = False
    counts: Tensor
    first_sums: Tensor
    second_sums: Tensor

    def __init__(self, n_classes: int, classes: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_classes = n_classes
        self.classes = chosen_classes(n_classes, classes)
        self.add_state("counts", torch.zeros(n_classes, dtype=torch.long), dist_reduce_fx=None)
        for name in ("first_sums", "second_sums"):
            sums = torch.zeros(n_classes, 0, dtype=torch.float64)
            self.add_state(name, sums, dist_reduce_fx=None)

    def update(
        self,
        first: Float[Tensor, "point d_first"] | SparseLatents,
        second: Float[Tensor, "point d_second"] | SparseLatents,
        labels: Int[Tensor, "point"],
    ) -> None:
        """Add points in both representations, e.g. residuals and effective latents."""
        with torch.no_grad():
            one, two = (class_moments(points, labels, self.n_classes) for points in (first, second))
        batch = {"counts": one.counts, "first_sums": one.sums, "second_sums": two.sums}
        own = {name: getattr(self, name) for name in batch}
        for name in ("first_sums", "second_sums"):
            width = own[name].shape[1]
            if width not in (0, batch[name].shape[1]):
                raise ValueError(f"expected {width} columns as before, got {batch[name].shape[1]}.")
        self._set(self.merge([own, batch]))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Add up counts and sums; states that have seen no batch have no columns yet."""
        seen = [state for state in states if state["first_sums"].shape[1]]
        if not seen:
            return states[0]
        return {name: torch.stack([state[name] for state in seen]).sum(0) for name in seen[0]}

    def estimate(self) -> Estimate:
        """Return the disparity with the number of classes."""
        spaces = [
            centroids(
                ClassMoments(self.counts, sums, sums.new_zeros(len(sums))).select(self.classes)
            )
            for sums in (self.first_sums, self.second_sums)
        ]
        n_empty = len(self.classes) - len(spaces[0])
        return procrustes_disparity(*spaces)._replace(n_dropped=n_empty)
