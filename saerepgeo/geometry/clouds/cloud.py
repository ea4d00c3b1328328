"""What a cloud of points is: known by coordinates, dense or sparse, or by distances."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saerepgeo.geometry.clouds.entries import full_precision, unit_of
from saerepgeo.types import Float, Int, SparseLatents

TF32 = 2.0**-10
"""Distance of 1 to the next number in the format in which a GPU may multiply float32."""


class Neighbors(NamedTuple):
    """The nearest other points of each point, nearest first; distances in float64."""

    distances: Float[Tensor, "point k"]
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
        """Return the distances between the two points of each edge, in float64."""


Points = Float[Tensor, "point dim"] | SparseLatents | Cloud
"""What every function of a cloud takes: dense and torch sparse tensors, latents, clouds."""


class RowCloud(Cloud):
    """Points given by their coordinates, searched block by block.

    Candidates are nominated by ‖x‖² + ‖y‖² − 2⟨x,y⟩, which is fast and loses digits, and measured
    by differences in float64, which is slow and exact.
    """

    norms: Float[Tensor, "point"]
    """Squared, on the device that computes."""
    n_terms: int
    """Products that a scalar product of two points adds up, at most."""
    rows_at_once: int
    """Whose products with all points are held."""
    entries_at_once: int
    """Of the differences of points."""

    def __init__(self, x: Any, entries: Tensor, scale: float, device: torch.device) -> None:
        unit = unit_of(entries)
        self.x, self.scale = x / unit, unit * scale
        self.n_points, self.device = x.shape[0], device

    @abstractmethod
    def dense(self, index: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        """Return the points `index` as rows, in units of `scale`."""

    @abstractmethod
    def _gram_rows(self, precision: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return a function of rows that gives ‖y‖² − 2⟨x_row, y⟩ for all points y."""

    @abstractmethod
    def _squares(self, rows: Tensor, others: Tensor) -> Tensor:
        """Return `squared_distances` of few rows."""

    @full_precision()
    def nominate(
        self, rows: Int[Tensor, "row"], count: int, precision: torch.dtype
    ) -> tuple[Int[Tensor, "row candidate"], Float[Tensor, "row"]]:
        """Return about `count` points near each row, and squared distances below all the others."""
        rows, gram_rows = rows.to(self.norms.device), self._gram_rows(precision)
        # what outlives a block is there before it: large blocks between small ones that stay would
        # pile up in the heap
        indices = rows.new_empty(len(rows), count)
        farthest = self.norms.new_empty(len(rows))
        for start in range(0, len(rows), self.rows_at_once):
            part = slice(start, start + self.rows_at_once)
            # the row's own norm is the same for all candidates: left out, added to the bound
            partial = gram_rows(rows[part])
            partial[torch.arange(len(partial), device=rows.device), rows[part]] = torch.inf
            nearest = partial.topk(count, largest=False)
            indices[part], farthest[part] = nearest.indices, nearest.values[:, -1].double()
        # |fl(⟨x,y⟩) − ⟨x,y⟩| ≤ n·u·‖x‖‖y‖ in any order of summation, and a few more roundings
        reach = self.norms[rows].sqrt() + self.norms.max().sqrt()
        eps = torch.finfo(precision).eps
        if self.device.type == "cuda" and precision == torch.float32:
            eps = TF32  # in which it may multiply: what is not proven is searched in float64
        error = (self.n_terms + 8) * eps * reach.square()
        bounds = farthest + self.norms[rows] - error
        return indices.to(self.device), bounds.to(self.device)

    def squared_distances(
        self, rows: Int[Tensor, "row"], others: Int[Tensor, "row candidate"]
    ) -> Float[Tensor, "row candidate"]:
        """Return ‖x_row − x_other‖² in units of `scale`², exact to float64."""
        size = max(1, self.entries_at_once // max(1, others.shape[1] * self.n_terms))
        squared = torch.empty(others.shape, dtype=torch.float64, device=self.device)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            squared[part] = self._squares(rows[part], others[part])
        return squared

    def coordinates(self, index: Int[Tensor, "row"] | None = None) -> Float[Tensor, "row dim"]:
        """Return points, all by default, in the units given and up to a shift of all."""
        everything = torch.arange(self.n_points, device=self.device)
        return self.dense(everything if index is None else index) * self.scale

    def lengths(self, edges: Int[Tensor, "edge 2"]) -> Float[Tensor, "edge"]:
        return self.squared_distances(edges[:, 0], edges[:, 1:])[:, 0].sqrt() * self.scale

    def size(self) -> float:
        if not self.n_points:
            return 0.0
        blocks = torch.arange(self.n_points, device=self.device).split(1024)
        mean = torch.stack([self.dense(block).sum(0) for block in blocks]).sum(0) / self.n_points
        total = sum(float((self.dense(block) - mean).square().sum()) for block in blocks)
        return self.scale * (total / self.n_points) ** 0.5
