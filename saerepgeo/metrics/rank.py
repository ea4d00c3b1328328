"""Ranks of a stream of points, from one sketch of its spectrum."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry import rank
from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.geometry.clouds.entries import unit_of
from saerepgeo.geometry.rank import Tolerance, numerical_rank, singular_values
from saerepgeo.geometry.sketch import Sketch, empty_sketch, extend_sketch, merge_sketches
from saerepgeo.metrics.geometry_metric import Count, EstimateMetric, FloatSum, MergedStateMetric
from saerepgeo.types import Estimate, Float, SparseLatents

EXACT_DIM = 2048
"""Up to so many columns the default sketch keeps all directions: exact, 64 MiB at most."""
WIDE_SIZE = 512
"""Directions that the default sketch keeps of more columns."""
PRECISIONS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class SpectrumMetric(EstimateMetric, MergedStateMetric):
    """A metric of the singular values of all points as the rows of one matrix.

    Holds a Frequent Directions sketch of bounded size, exact while the points span at most
    `sketch_size` dimensions. Beyond, σ² of the sketch ≤ σ² of the points ≤ σ² of the sketch +
    `shrinkage`; processes, not batches, then make a difference within that bound, and figures are
    those of the directions kept. No points, or zeros only where ratios are taken: undefined.

    Args:
        sketch_size: directions kept; None keeps all up to 2048 columns, 512 of more.
        center: take the mean row off: the spectrum of the covariance.
    """

    plot_lower_bound = 0.0
    of_spectrum: Callable[[Tensor], Estimate]
    """The figure of singular values, largest first."""
    rows: Tensor
    shrinkage: FloatSum
    n_points: Count
    coarsest: Tensor

    def __init__(
        self, sketch_size: int | None = None, *, center: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if sketch_size is not None and sketch_size < 1:
            raise ValueError(f"`sketch_size` must be ≥ 1, got {sketch_size}")
        self.sketch_size, self.center = sketch_size, center
        self.add_state("rows", torch.zeros(0, 0, dtype=torch.float64), dist_reduce_fx="cat")
        self.add_state("coarsest", torch.zeros((), dtype=torch.long), dist_reduce_fx="max")
        self.add_settings(sketch_size, center)

    def update(self, points: Float[Tensor, "point dim"] | SparseLatents) -> None:
        """Add points as rows of the matrix."""
        x = as_float64(points).detach().to(self.rows.device)
        if self.center:  # what is orthogonal to a column of ones cancels no digits
            x = torch.cat([x.new_ones(len(x), 1), x], 1)
        dtype = points.values.dtype if isinstance(points, SparseLatents) else points.dtype
        sketch = extend_sketch(self._sketch(self.rows, self.shrinkage, x.shape[1]), x)
        self.rows, self.shrinkage = sketch.rows, sketch.shrinkage
        self.n_points += len(x)
        if len(x):
            self.coarsest = self.coarsest.clamp(min=PRECISIONS.index(dtype))

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        filled = [state for state in states if state["rows"].shape[1]] or states[:1]
        parts = [(state["rows"], state["shrinkage"]) for state in filled]
        sketch = reduce(merge_sketches, [self._sketch(*part, part[0].shape[1]) for part in parts])
        n_points, coarsest = (torch.stack([s[k] for s in states]) for k in ("n_points", "coarsest"))
        joined = {"n_points": n_points.sum(), "coarsest": coarsest.max()}
        return joined | {"rows": sketch.rows, "shrinkage": sketch.shrinkage}

    @property
    def n_columns(self) -> int:
        """Columns of the points; 0 before the first ones."""
        return max(self.rows.shape[1] - self.center, 0)

    @property
    def spectrum(self) -> Float[Tensor, "value"]:
        """Singular values of the points this process has seen, largest first."""
        if not self.center or not len(self.rows):
            return singular_values(self.rows)
        ones, x = self.rows[:, :1], self.rows[:, 1:]
        unit = unit_of(x)
        x = x / unit
        # the first row of the triangle is the column of ones and all that is parallel to it
        values = singular_values(torch.linalg.qr(torch.cat([ones, x], 1), mode="r").R[1:, 1:])
        # what is left of equal points is the rounding of their mean
        rounding = 10 * self.rows.shape[1] * torch.finfo(torch.float64).eps
        return torch.where(values > rounding * x.norm(), values, 0.0) * unit

    def _sketch(self, rows: Tensor, shrinkage: Tensor, dim: int) -> Sketch:
        size = self.sketch_size or (dim if dim <= EXACT_DIM + self.center else WIDE_SIZE)
        fresh = empty_sketch(dim, max(size, 1), rows.device)
        return Sketch(rows, shrinkage, fresh.size) if rows.shape[1] else fresh

    def estimate(self) -> Estimate:
        if not self.n_points:
            return Estimate.undefined("no points")
        return self.of_spectrum(self.spectrum)._replace(n_used=int(self.n_points))


class NumericalRank(SpectrumMetric):
    """Number of singular values above a threshold, which is in `threshold` after `compute`.

    Of an inexact sketch it is a lower bound, and undefined for `"gavish-donoho"` without `noise`,
    which needs the whole spectrum.

    Args:
        tolerance: the rule, see `geometry.numerical_rank`: `"eps"`, `"gavish-donoho"` or a number.
        dtype: precision of the data; None takes the coarsest dtype of the points seen.
        noise: standard deviation of an entry's noise, for `"gavish-donoho"`.

    >>> metric = NumericalRank()
    >>> metric.update(torch.ones(100, 7))
    >>> metric.compute().item()
    1.0
    """

    threshold: float | None = None

    def __init__(
        self,
        tolerance: Tolerance = "eps",
        *,
        dtype: torch.dtype | None = None,
        noise: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tolerance, self.data_dtype, self.noise = tolerance, dtype, noise
        numerical_rank(torch.ones(1), (1, 1), tolerance, noise=noise)  # bad arguments fail now

    def of_spectrum(self, sv: Tensor) -> Estimate:
        is_exact = float(self.shrinkage) <= 1e-20 * float(self.rows.square().sum())
        if self.tolerance == "gavish-donoho" and self.noise is None and not is_exact:
            return Estimate.undefined(
                "the median singular value is not in the sketch: give `noise`"
            )
        shape = (int(self.n_points), self.n_columns)
        dtype = self.data_dtype or PRECISIONS[int(self.coarsest)]
        found = numerical_rank(sv, shape, self.tolerance, dtype=dtype, noise=self.noise)
        self.threshold = found.threshold
        return Estimate(self.rows.new_tensor(found.rank), int(self.n_points), 0)


class EffectiveRank(SpectrumMetric):
    """exp H(σ/Σσ), the number of equal singular values of the same entropy (RankMe).

    >>> metric = EffectiveRank()
    >>> metric.update(torch.eye(5))
    >>> round(metric.compute().item(), 6)
    5.0
    """

    of_spectrum = staticmethod(rank.effective_rank)


class StableRank(SpectrumMetric):
    """Σσ²/σ₁², which small perturbations hardly change.

    >>> metric = StableRank()
    >>> metric.update(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    >>> metric.compute().item()
    1.25
    """

    of_spectrum = staticmethod(rank.stable_rank)


class ParticipationRatio(SpectrumMetric):
    """(Σσ²)²/Σσ⁴: of the covariance with `center`, of the second moment matrix without.

    >>> metric = ParticipationRatio()
    >>> metric.update(torch.eye(4))
    >>> round(metric.compute().item(), 6)
    4.0
    """

    of_spectrum = staticmethod(rank.participation_ratio)
