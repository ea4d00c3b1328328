"""Points by all their coordinates."""

import math

import numpy as np
import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import (
    BLOCK_BYTES,
    Cloud,
    Nomination,
    RowCloud,
    power_of_two,
)
from saerepgeo.types import Float, Int

__all__ = ["DenseCloud"]

CACHE_BYTES = 1 << 22
"""Size of the differences of points that are formed at once: about a cache."""


class DenseCloud(RowCloud):
    """Points as rows of a float64 matrix; centered by whoever makes it."""

    def __init__(self, x: Float[Tensor, "point dim"]) -> None:
        top = float(x.abs().max()) if x.numel() else 0.0
        self.scale = power_of_two(top)
        self.x = x / self.scale
        self.n_points, self.device = len(x), x.device
        self.norms = self.x.square().sum(1)

    def take(self, index: Int[Tensor, "kept"]) -> "Cloud":
        taken = DenseCloud(self.x[index])
        taken.scale *= self.scale
        return taken

    def distances_from(self, index: int) -> np.ndarray:
        norms = self.norms + self.norms[index]
        squares = torch.addmv(norms, self.x, self.x[index], alpha=-2)
        return squares.clamp_(min=0).sqrt_().mul_(self.scale).cpu().numpy()

    def dense(self, index: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        return self.x[index]

    def nominate(self, rows: Int[Tensor, "row"], count: int, precision: torch.dtype) -> Nomination:
        x, norms = self._in(precision)
        indices, bounds = [], []
        for block in rows.split(max(1, BLOCK_BYTES // (8 * self.n_points))):
            # the row's own norm is the same for all candidates: left out, added to the bound
            partial = torch.addmm(norms, x[block], x.T, alpha=-2)
            partial[torch.arange(len(block), device=self.device), block] = math.inf
            nearest = partial.topk(count, largest=False)
            indices.append(nearest.indices)
            bounds.append(nearest.values[:, -1].double() + self.norms[block])
        return Nomination(torch.cat(indices), torch.cat(bounds) - self._error(rows, precision))

    def squared_distances(
        self, rows: Int[Tensor, "row"], others: Int[Tensor, "row candidate"]
    ) -> Float[Tensor, "row candidate"]:
        size = max(1, CACHE_BYTES // (8 * max(1, others.shape[1] * self.x.shape[1])))
        squared = torch.empty(others.shape, dtype=torch.float64, device=self.device)
        for block in range(0, len(rows), size):
            part = slice(block, block + size)
            differences = self.x[others[part]] - self.x[rows[part], None]
            squared[part] = differences.square().sum(2)
        return squared

    def _in(self, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.x.to(precision), self.norms.to(precision)

    def _error(self, rows: Tensor, precision: torch.dtype) -> Tensor:
        # |fl(⟨x,y⟩) − ⟨x,y⟩| ≤ D·u·‖x‖‖y‖ in any order of summation, and a few more roundings
        unit = (self.x.shape[1] + 8) * torch.finfo(precision).eps
        return unit * (self.norms[rows].sqrt() + self.norms.max().sqrt()).square()
