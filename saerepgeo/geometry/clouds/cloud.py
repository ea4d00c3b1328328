"""What a cloud of points is: known by coordinates, dense or sparse, or by distances.

A cloud of rows nominates candidates by the Gram matrix, ‖x‖² + ‖y‖² − 2⟨x,y⟩, which is fast and
loses digits, and measures them by differences in float64, which is slow and exact.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saerepgeo.types import Float, Int, SparseLatents

__all__ = ["BLOCK_BYTES", "Cloud", "Neighbors", "Nomination", "Points", "RowCloud", "power_of_two"]

BLOCK_BYTES = 1 << 26
"""Size of a temporary array, about; two or three of them are alive at once."""


class Nomination(NamedTuple):
    """Points that may be the nearest ones, and what is known of all others."""

    indices: Int[Tensor, "row candidate"]
    bounds: Float[Tensor, "row"]
    """No point left out is nearer than this squared distance."""


class Neighbors(NamedTuple):
    """The nearest other points of each point, nearest first."""

    distances: Float[Tensor, "point k"]
    """float64."""
    indices: Int[Tensor, "point k"]


class Cloud(ABC):
    """N points, and the neighbors found so far: figures of one cloud share them."""

    n_points: int
    device: torch.device
    found: Neighbors | None = None
    """In units of the points as given; filled by `nearest_neighbors`."""

    @abstractmethod
    def take(self, index: Int[Tensor, "kept"]) -> "Cloud":
        """Return the cloud of the points `index`."""

    @abstractmethod
    def size(self) -> float:
        """Return the root mean square distance of the points from their centroid."""

    @abstractmethod
    def distances_from(self, index: int) -> np.ndarray:
        """Return the distances of one point to all, off by the rounding of scalar products."""

    @abstractmethod
    def lengths(self, edges: Int[Tensor, "edge 2"]) -> Float[Tensor, "edge"]:
        """Return the distances between the two points of each edge."""


Points = Float[Tensor, "point dim"] | SparseLatents | Cloud
"""What every function of a cloud takes: dense and torch sparse tensors, latents, clouds."""


class RowCloud(Cloud):
    """Points given by their coordinates, searched block by block."""

    scale: float
    """Distances between the points as given = distances here · `scale`."""

    @abstractmethod
    def dense(self, index: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        """Return the points `index` as rows."""

    @abstractmethod
    def nominate(self, rows: Int[Tensor, "row"], count: int, precision: torch.dtype) -> Nomination:
        """Return about `count` candidates for each of `rows`, never the point itself."""

    @abstractmethod
    def squared_distances(
        self, rows: Int[Tensor, "row"], others: Int[Tensor, "row candidate"]
    ) -> Float[Tensor, "row candidate"]:
        """Return ‖x_row − x_other‖² in units of the rows, exact to float64."""

    def coordinates(self, index: Int[Tensor, "row"] | None = None) -> Float[Tensor, "row dim"]:
        """Return points, all by default, in the units given and up to a shift of all."""
        everything = torch.arange(self.n_points, device=self.device)
        return self.dense(everything if index is None else index) * self.scale

    def lengths(self, edges: Int[Tensor, "edge 2"]) -> Float[Tensor, "edge"]:
        """Return the distances between the two points of each edge, exact to float64."""
        return self.squared_distances(edges[:, 0], edges[:, 1:])[:, 0].sqrt() * self.scale

    def size(self) -> float:
        """Return the root mean square distance of the points from their centroid."""
        if not self.n_points:
            return 0.0
        blocks = torch.arange(self.n_points, device=self.device).split(1024)
        mean = torch.stack([self.dense(block).sum(0) for block in blocks]).sum(0) / self.n_points
        total = sum(float((self.dense(block) - mean).square().sum()) for block in blocks)
        return self.scale * (total / self.n_points) ** 0.5


def power_of_two(top: float) -> float:
    """Return a scale that squares may go with, by a factor that rounds nothing."""
    return math.ldexp(1.0, max(math.frexp(top)[1], -1000)) if top > 0 else 1.0
