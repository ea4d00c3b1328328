"""Moments of residuals, by hook, from as few contexts as it takes."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

STANDARD_ERROR = 0.02
"""Of the residuals' variance, relative to it, at most."""
FEWEST_CONTEXTS = 16
"""Of fewer a small standard error is luck."""
PointsByHook = dict[str, Tensor]
"""By hook, points `[point, d_model]` of the same contexts."""


class ResidualStatistics(NamedTuple):
    """Mean `[d_model]`, total variance E‖x − mean‖², mean square E‖x‖² of background residuals.

    `standard_error` is the variance's, with contexts as units, of which `n_contexts` were read.
    """

    mean: Tensor
    variance: Tensor
    mean_square: Tensor
    n_contexts: int
    standard_error: float

    @property
    def is_sure(self) -> bool:
        """Whether more contexts would change little."""
        is_small = not self.standard_error > STANDARD_ERROR * float(self.variance)
        return is_small and self.n_contexts >= FEWEST_CONTEXTS


def residual_statistics(parts: Iterable[tuple[PointsByHook, int]]) -> dict[str, ResidualStatistics]:
    """Return the moments at each hook, from as many parts as it takes.

    A part holds points, by hook, and the number of their units. A hook is done with where the
    standard error of its variance is at most `STANDARD_ERROR` of it, from `FEWEST_CONTEXTS` units
    or more, or no part is left.
    """
    units, origins = dict[str, list[Tensor]](), dict[str, Tensor]()
    found: dict[str, ResidualStatistics] = {}
    for by_hook, n_units in parts:
        unsure = [hook for hook in by_hook if hook not in found or not found[hook].is_sure]
        for hook in unsure:
            points = by_hook[hook].double()
            origin = origins.setdefault(hook, points[:1].sum(0))
            for x in (points - origin).tensor_split(n_units):
                facts = x.new_tensor([len(x), x.square().sum()])
                units.setdefault(hook, []).append(torch.cat([facts, x.sum(0)]))
            found[hook] = _moments(torch.stack(units[hook]), origin)
        if all(statistics.is_sure for statistics in found.values()):
            break
    return found


def _moments(units: Tensor, origin: Tensor) -> ResidualStatistics:
    """Return the moments from rows of n, Σ‖x − o‖² and Σ(x − o), one for each context; o a point.

    Standard error of the ratio of sums Σ_c Σ_p ‖x − mean‖²/Σ_c n_c over contexts c.
    """
    (n_points, squares), sums = units[:, :2].T, units[:, 2:]
    n = n_points.sum()
    mean = sums.sum(0) / n
    variance = squares.sum() / n - mean.square().sum()
    scatter = squares - 2 * sums @ mean + n_points * mean.square().sum()
    error = (scatter - variance * n_points).square().sum().sqrt() / n
    scale = (len(units) / (len(units) - 1)) ** 0.5 if len(units) > 1 else float("inf")
    mean = mean + origin
    moments = mean.float(), variance.float(), (variance + mean.square().sum()).float()
    return ResidualStatistics(*moments, len(units), scale * float(error))
