"""Intrinsic dimension of a stream of points."""

from typing import Any

import torch

from saerepgeo.geometry.dimension import TOLERANCE, Method, ScaleCurve, gride, two_nn
from saerepgeo.geometry.nulls import subsample_interval
from saerepgeo.metrics.reservoir import PointReservoir
from saerepgeo.types import Estimate, Interval

__all__ = ["IntrinsicDimension"]


class IntrinsicDimension(PointReservoir):
    """Intrinsic dimension by TwoNN: d from the ratios r₂/r₁ of neighbor distances.

    Keeps a sample of at most `max_points` points (see `PointReservoir`) and calls `two_nn`. A
    smaller sample looks at a larger scale: figures compare at the same number of points. Undefined
    for fewer than 30 distinct points; duplicates are merged and count, with the points left out of
    the sample, as dropped.

    Args:
        max_points: size of the sample.
        discard: fraction of the largest ratios set aside.
        method: `"linear"` or `"mle"`.
        tolerance: relative distance below which two points are one.

    >>> metric = IntrinsicDimension()
    >>> metric.update(torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)))
    >>> round(metric.compute().item(), 1)
    2.0
    """

    def __init__(
        self,
        max_points: int = 10_000,
        discard: float = 0.1,
        method: Method = "linear",
        tolerance: float = TOLERANCE,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_points, **kwargs)
        self.discard = discard
        self.method: Method = method
        self.tolerance = tolerance

    def estimate(self) -> Estimate:
        """Return the dimension of the sample with its counts."""
        figure = self._two_nn(self.points)
        return figure._replace(n_dropped=figure.n_dropped + self.n_left_out)

    def scale_curve(self) -> ScaleCurve:
        """Return the dimension over scales (GRIDE) of the points this process has sampled."""
        curve = gride(self.points, tolerance=self.tolerance)
        return curve._replace(n_dropped=curve.n_dropped + self.n_left_out)

    def interval(
        self, fraction: float = 0.5, n_draws: int = 30, generator: torch.Generator | None = None
    ) -> Interval:
        """Return the subsampling interval over the points this process has sampled."""
        return subsample_interval(
            self._two_nn, self.points, fraction=fraction, n_draws=n_draws, generator=generator
        )

    def _two_nn(self, points: torch.Tensor) -> Estimate:
        return two_nn(points, self.discard, method=self.method, tolerance=self.tolerance)
