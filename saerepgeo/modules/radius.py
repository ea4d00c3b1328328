"""The scale at which connected components are counted."""

import torch
from torch import Tensor

from saerepgeo.geometry.neighbours import nearest_neighbours
from saerepgeo.types import Float

QUANTILE = 0.95


def connection_radius(points: Float[Tensor, "point dim"], k: int = 10) -> float:
    """Return the 95 % quantile over points of the distance to neighbour `k`.

    A radius without units of its own: scaling the points scales it, so Betti-0 stays. A random
    geometric graph in which points have k neighbours on average is connected once k exceeds about
    ln N; with k = 10 one cloud of even density is one component up to some 20,000 points, while
    groups of more than k points that lie further apart than their own neighbours do count
    separately. `k` is capped at N − 1; 0 for fewer than two points.

    >>> connection_radius(torch.arange(40.0)[:, None], 2)
    1.05
    """
    if len(points) < 2:
        return 0.0
    distances = nearest_neighbours(points, min(k, len(points) - 1)).distances[:, -1]
    return round(float(torch.quantile(distances, QUANTILE)), 12)
