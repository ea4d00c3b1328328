"""All distances of a cloud at once, and coordinates in which they cost less."""

import torch
from torch import Tensor

from saerepgeo.types import Float

__all__ = ["rotated"]


def rotated(points: Float[Tensor, "point dim"]) -> Float[Tensor, "point kept"]:
    """Return centered points in no more dimensions than there are points: distances stay.

    Float64, on the CPU, without gradient; dimensions without variance are left out of wide points.
    No points stay none.

    >>> rotated(torch.tensor([[0.0, 3.0, 0.0], [4.0, 0.0, 0.0]])).norm(dim=1)
    tensor([2.5000, 2.5000], dtype=torch.float64)
    """
    x = points.detach().cpu().double()
    x = x - x.mean(0)
    if x.shape[1] <= x.shape[0]:
        return x
    values, vectors = torch.linalg.eigh(x @ x.T)
    kept = values > 1e-13 * values[-1]
    return vectors[:, kept] * values[kept].sqrt()
