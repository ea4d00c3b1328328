"""The scale at which connected components are counted."""

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.dense import Cloud, as_cloud
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.types import Float, SparseLatents

QUANTILE = 0.95
SLACK = 1e-9
"""Relative: the pair whose distance is the radius itself is connected, whatever the rounding."""


def connection_radius(
    points: Float[Tensor, "point dim"] | SparseLatents | Cloud, k: int = 10
) -> float:
    """Return the 95 % quantile over points of the distance to neighbor `k`.

    A radius without units of its own: scaling the points scales it, so Betti-0 stays. A random
    geometric graph in which points have k neighbors on average is connected once k exceeds about
    ln N; with k = 10 one cloud of even density is one component up to some 20,000 points, while
    groups of more than k points that lie further apart than their own neighbors do count
    separately. `k` is capped at N − 1; 0 for fewer than two points.

    >>> round(connection_radius(torch.arange(40.0)[:, None], 2), 6)
    1.05
    """
    cloud = as_cloud(points)
    if cloud.n_points < 2:
        return 0.0
    distances = nearest_neighbors(cloud, min(k, cloud.n_points - 1)).distances[:, -1]
    return float(torch.quantile(distances, QUANTILE)) * (1 + SLACK)
