"""How many directions a cloud of points takes up, from one spectrum."""

import torch

from saerepgeo.geometry.clouds.entries import unit_of
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.rank import (
    effective_rank,
    numerical_rank,
    participation_ratio,
    singular_values,
    stable_rank,
)
from saerepgeo.metrics.cloud_metric import CloudMetric
from saerepgeo.types import Estimate


class SpectralRanks(CloudMetric):
    """`rank`, `effective_rank`, `stable_rank` and `participation_ratio` of the centered points.

    As the metrics of these names with `center`, of one spectrum: the numerical rank is that of
    float32 data. Neither interval nor null: a subsample has fewer directions, and a Gaussian cloud
    of the same covariance the same. No points, or all equal: rank 0, the others undefined.

    >>> metric = SpectralRanks()
    >>> metric.update(torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0]]))
    >>> metric.compute()["rank"].item()
    1.0
    """

    null = None
    is_drawn = False

    def figures(self, cloud: LabeledCloud) -> dict[str, Estimate]:
        x, n = cloud.coordinates(), cloud.n_points
        x = x / unit_of(x)  # no figure has units
        values = singular_values(x - x.mean(0))
        # what is left of equal points is the rounding of their mean
        values = values * (values > 1e-12 * x.norm())
        rank = numerical_rank(values, (n, x.shape[1]), dtype=torch.float32).rank
        found = {"rank": Estimate(values.new_tensor(float(rank)), n, 0)}
        relatives = (effective_rank, stable_rank, participation_ratio)
        return found | {f.__name__: f(values)._replace(n_used=n) for f in relatives}
