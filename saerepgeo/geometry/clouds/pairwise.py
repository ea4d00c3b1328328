"""All distances of a cloud at once, and coordinates in which they cost less."""

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.entries import centered, full_precision
from saerepgeo.types import Float


@full_precision()
def gram_distances(
    x: Float[Tensor, "*cloud point dim"], y: Float[Tensor, "*cloud other dim"] | None = None
) -> Float[Tensor, "*cloud point other"]:
    """Return ‖x_i − y_j‖ by way of scalar products, y = x by default; differentiable.

    Fast, and off by about √eps of the largest norm where points nearly coincide, by eps elsewhere:
    center the points first. A square below its own rounding is 0, with gradient 0.

    >>> gram_distances(torch.tensor([[0.0], [3.0]]), torch.tensor([[3.0], [7.0]]))
    tensor([[3., 7.],
            [0., 4.]])
    """
    squares = x @ (x if y is None else y).mT
    if y is None:
        norms = squares.diagonal(dim1=-2, dim2=-1).clone()
        scale = norms[..., None] + norms[..., None, :]
    else:
        scale = x.square().sum(-1)[..., None] + y.square().sum(-1)[..., None, :]
    squares.mul_(-2).add_(scale)
    limit = scale.detach().mul_(8 * torch.finfo(x.dtype).eps)
    return squares.masked_fill_(squares.detach() <= limit, 0.0).sqrt_()


def rotated(points: Float[Tensor, "point dim"]) -> Float[Tensor, "point kept"]:
    """Return centered points in no more dimensions than there are points: distances stay.

    Float64, on the CPU, without gradient; wide points lose dimensions without variance.

    >>> rotated(torch.tensor([[0.0, 3.0, 0.0], [4.0, 0.0, 0.0]])).norm(dim=1)
    tensor([2.5000, 2.5000], dtype=torch.float64)
    """
    x, unit = centered(points.detach().cpu().double())
    if x.shape[1] <= x.shape[0] or not len(x):
        return x * unit
    values, vectors = torch.linalg.eigh(x @ x.T)
    kept = values > 1e-13 * values[-1]
    return vectors[:, kept] * values[kept].sqrt() * unit
