"""Clouds of points as the neighbor search sees them; see `cloud_bases`."""

import math

import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.checks import as_float64, check_finite
from saerepgeo.geometry.clouds.base import (
    BLOCK_BYTES,
    Cloud,
    Neighbors,
    Nomination,
    RowCloud,
    power_of_two,
)
from saerepgeo.geometry.clouds.sparse import SparseCloud, csr_of_latents, csr_of_tensor
from saerepgeo.types import Float, Int, SparseLatents

__all__ = [
    "Cloud",
    "DenseCloud",
    "Neighbors",
    "Nomination",
    "RowCloud",
    "SparseCloud",
    "as_cloud",
]

CACHE_BYTES = 1 << 22
"""Size of the differences of points that are formed at once: about a cache."""
SPARSE_SHARE = 0.05
"""A dense matrix on the CPU with at most this share of non-zero entries is searched as sparse."""


def as_cloud(points: Tensor | SparseLatents | Cloud) -> Cloud:
    """Return the cloud of `points`; sparse where that saves most of the work.

    Raises ValueError for integers, non-finite entries and anything that is not a matrix.
    """
    if isinstance(points, Cloud):
        return points
    if isinstance(points, SparseLatents):
        check_finite(points.values)
        return SparseCloud(csr_of_latents(points), points.values.device)
    if points.layout != torch.strided:
        rows = points.detach()
        rows = rows if rows.layout == torch.sparse_csr else rows.to_sparse_coo().coalesce()
        check_finite(rows)
        return SparseCloud(csr_of_tensor(rows.cpu()), points.device)
    entries = _few_entries(points)
    if entries is not None:
        return SparseCloud(entries, points.device)
    x = as_float64(points).detach()
    return DenseCloud(x - x.mean(0)) if len(x) else DenseCloud(x)


class DenseCloud(RowCloud):
    """Points as rows of a float64 matrix; centered by whoever makes it."""

    precisions: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

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


def _few_entries(points: Tensor) -> sparse.csr_matrix | None:
    """Return a wide dense matrix on the CPU as a sparse one where that pays."""
    if points.ndim != 2 or points.device.type != "cpu" or points.shape[1] <= 100:
        return None
    if not 0 < int(points.count_nonzero()) <= SPARSE_SHARE * points.numel():
        return None
    check_finite(points)
    rows, columns = points.detach().nonzero().T
    values = points.detach()[rows, columns].double().numpy()
    return sparse.csr_matrix((values, (rows.numpy(), columns.numpy())), shape=tuple(points.shape))
