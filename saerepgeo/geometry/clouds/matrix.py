"""A cloud small enough that all its distances are held at once: figures share the one matrix."""

import numpy as np
import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud, Neighbors
from saerepgeo.geometry.clouds.entries import centered, check_matrix, unit_of
from saerepgeo.geometry.clouds.pairwise import gram_distances
from saerepgeo.types import Float, Int

MATRIX_POINTS = 2048
"""Points from which on no matrix of all distances is held: 32 MiB in float64."""


class MatrixCloud(Cloud):
    """N points known by the N × N matrix of their distances, in float32 or float64.

    Neighbors, trees, clusters and paths of a subset are read off a part of the matrix, so that a
    hundred subsamples cost no distance more.
    """

    def __init__(self, distances: Float[Tensor, "point point"]) -> None:
        check_matrix(distances, "distances")
        if distances.shape[0] != distances.shape[1] or bool((distances < 0).any()):
            raise ValueError(f"`distances` must be square and ≥ 0, got {tuple(distances.shape)}")
        self._hold(distances.detach())

    def _hold(self, distances: Tensor) -> "MatrixCloud":
        """Take distances over that need no check."""
        self.distances = distances if distances.dtype == torch.float64 else distances.float()
        self.n_points, self.device = len(distances), distances.device
        return self

    @classmethod
    def of_points(cls, points: Float[Tensor, "point dim"]) -> "MatrixCloud":
        """Measure all pairs of points by `gram_distances`, in the precision of the points.

        >>> MatrixCloud.of_points(torch.tensor([[0.0], [3.0], [7.0]])).distances[0]
        tensor([0., 3., 7.])
        """
        check_matrix(points)
        x, unit = centered(points.detach())
        distances = gram_distances(x).mul_(unit)
        check_matrix(distances, "distances")  # they may overflow
        return object.__new__(cls)._hold(distances)

    def take(self, index: Int[Tensor, "kept"]) -> "MatrixCloud":
        return object.__new__(MatrixCloud)._hold(self.distances[index][:, index])

    def size(self) -> float:
        norm = float(torch.linalg.vector_norm(self.distances))
        if not 1e-15 < norm < 1e15:  # squares may leave the range of float32
            unit = unit_of(self.distances)
            norm = float(torch.linalg.vector_norm(self.distances / unit)) * unit
        return norm / max(self.n_points, 1) / 2**0.5

    def nearest(self, k: int) -> Neighbors:
        """Return the `k` nearest other points of every point."""
        others = self.distances.clone().fill_diagonal_(torch.inf)
        found = others.topk(k, largest=False)
        return Neighbors(found.values.double(), found.indices)

    def distances_from(self, index: int) -> np.ndarray:
        return self.distances[index].cpu().numpy()

    def lengths(self, edges: Int[Tensor, "edge 2"]) -> Float[Tensor, "edge"]:
        return self.distances[edges[:, 0], edges[:, 1]].double()
