"""The silhouette of a stream of labeled points."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.checks import as_float64
from saerepgeo.geometry.silhouettes import silhouette
from saerepgeo.metrics.reservoir import PointReservoir
from saerepgeo.metrics.separation import chosen_classes
from saerepgeo.types import Estimate, Float, Int, SparseLatents

__all__ = ["Silhouette"]

_MAX_CLASSES = 2**24  # labels are kept as a float32 column


class Silhouette(PointReservoir):
    """Mean silhouette of labeled points, between −1 and 1.

    See `geometry.silhouette`. Keeps at most `max_points` labeled points (see `PointReservoir`),
    for the figure needs all distances. Undefined for fewer than two classes and where every point
    is a class of its own. Points outside the chosen classes are not counted; labeled points left
    out of the sample count as dropped.

    Args:
        n_classes: number of class ids; points labeled −1 are not kept.
        classes: ids the figure is about, e.g. the items of one concept; all by default.
        max_points: size of the sample.

    Bad input raises ValueError: integers, non-finite values, unequal lengths, labels out of range.
    """

    higher_is_better = True

    def __init__(
        self,
        n_classes: int,
        classes: Sequence[int] | None = None,
        max_points: int = 5_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_points, **kwargs)
        if n_classes > _MAX_CLASSES:
            raise ValueError(f"`n_classes` must be at most {_MAX_CLASSES}, got {n_classes}.")
        self.n_classes = n_classes
        self.classes = chosen_classes(n_classes, classes)

    def update(  # type: ignore[override]
        self, points: Float[Tensor, "point dim"] | SparseLatents, labels: Int[Tensor, "point"]
    ) -> None:
        """Add labeled points."""
        x = as_float64(points)
        if labels.shape != x.shape[:1]:
            raise ValueError(
                f"`labels` must have one entry a point, got {tuple(labels.shape)} for "
                f"{len(x)} points."
            )
        if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < self.n_classes:
            raise ValueError(
                f"`labels` must lie in −1…{self.n_classes - 1}, got {int(labels.min())}…"
                f"{int(labels.max())}."
            )
        keep = labels >= 0
        super().update(torch.cat([x[keep], labels[keep, None].to(x)], dim=1))

    def estimate(self) -> Estimate:
        """Return the silhouette of the sample with its counts."""
        if not len(self.points):
            return Estimate.undefined("no labeled points")
        labels = self.points[:, -1].long()
        chosen = torch.isin(labels, torch.tensor(self.classes, device=labels.device))
        figure = silhouette(self.points[chosen, :-1], labels[chosen])
        return figure._replace(n_dropped=self.n_left_out)
