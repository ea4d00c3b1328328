"""Points with few entries: what a cloud of latents is searched as."""

import math
import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.clouds.base import BLOCK_BYTES, Cloud, Nomination, RowCloud, power_of_two
from saerepgeo.types import Float, Int, SparseLatents

__all__ = ["SparseCloud", "csr_of_latents", "csr_of_tensor"]

DENSE_ROWS = 256
"""Rows that are made dense at once, to be multiplied with all points."""


class SparseCloud(RowCloud):
    """Points as rows of a CSR matrix; not centered, which would fill it."""

    precisions: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

    def __init__(self, x: sparse.csr_matrix, device: torch.device) -> None:
        top = float(abs(x.data).max()) if x.nnz else 0.0
        self.scale = power_of_two(top)
        self.x = x / self.scale
        self.n_points, self.device = x.shape[0], device
        self.transposed = self.x.T.tocsr()
        self.norms = np.asarray(self.x.multiply(self.x).sum(1)).ravel()
        self.longest = int(np.diff(self.x.indptr).max(initial=0))

    def take(self, index: Int[Tensor, "kept"]) -> "Cloud":
        taken = SparseCloud(self.x[index.cpu().numpy()], self.device)
        taken.scale *= self.scale
        return taken

    def dense(self, index: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        return _to(self.x[index.cpu().numpy()].toarray(), self.device)

    def nominate(self, rows: Int[Tensor, "row"], count: int, precision: torch.dtype) -> Nomination:
        if precision == torch.float32:
            return self._nominate_fast(rows, count)
        # a point that shares no entry with the row lies at ‖x‖² + ‖y‖²: of those, the smallest
        # ones are candidates, and the first one not listed bounds the rest
        smallest = np.argsort(self.norms, kind="stable")[: count + 1]
        apart = np.inf if count + 1 >= self.n_points else self.norms[smallest[-1]]
        indices = np.empty((len(rows), 2 * count), dtype=np.int64)
        bounds = np.empty(len(rows))
        size = max(1, BLOCK_BYTES // (16 * self.n_points))
        numbers = rows.cpu().numpy()
        for start in range(0, len(rows), size):
            block = numbers[start : start + size]
            overlaps = self.x[block] @ self.transposed
            for place, row in enumerate(block, start):
                span = slice(*overlaps.indptr[place - start : place - start + 2])
                sharing = overlaps.indices[span]
                partial = self.norms[sharing] - 2 * overlaps.data[span]
                near, bound = _smallest(sharing, partial, int(row), count)
                filler = smallest[smallest != row][: 2 * count - len(near)]
                indices[place] = np.resize(np.concatenate([near, filler]), 2 * count)
                bounds[place] = min(bound, apart) + self.norms[row]
        bounds -= self._error(numbers, np.finfo(np.float64).eps)
        return Nomination(_to(indices, self.device), _to(bounds, self.device))

    def _nominate_fast(self, rows: Int[Tensor, "row"], count: int) -> Nomination:
        """Nominate in float32, from products of all points with blocks of dense rows."""
        single = _torch_csr(self.x)
        norms = torch.from_numpy(self.norms).float()
        numbers = rows.cpu().numpy()
        # what outlives a block is there before it: large blocks between small ones that stay would
        # pile up in the heap
        indices = torch.empty(len(numbers), count, dtype=torch.long)
        farthest = torch.empty(len(numbers))
        squares = torch.empty(DENSE_ROWS, self.n_points)
        for start in range(0, len(numbers), DENSE_ROWS):
            block = numbers[start : start + DENSE_ROWS]
            dense = torch.from_numpy(self.x[block].astype(np.float32).toarray())
            partial = squares[: len(block)].copy_((single @ dense.T.contiguous()).T)
            partial.mul_(-2).add_(norms)
            partial[torch.arange(len(block)), torch.from_numpy(block)] = torch.inf
            nearest = partial.topk(count, largest=False)
            indices[start : start + len(block)] = nearest.indices
            farthest[start : start + len(block)] = nearest.values[:, -1]
        error = self._error(numbers, float(np.finfo(np.float32).eps))
        bounds = farthest.double() + torch.from_numpy(self.norms[numbers] - error)
        return Nomination(indices.to(self.device), bounds.to(self.device))

    def _error(self, numbers: np.ndarray, eps: float) -> np.ndarray:
        """Return what Gram distances from these rows can be off by, at most."""
        reach = np.sqrt(self.norms[numbers]) + np.sqrt(self.norms.max())
        return (self.longest + 8) * eps * reach**2

    def squared_distances(
        self, rows: Int[Tensor, "row"], others: Int[Tensor, "row candidate"]
    ) -> Float[Tensor, "row candidate"]:
        count = others.shape[1]
        squared = np.empty(others.shape)
        size = max(1, BLOCK_BYTES // (32 * count * max(1, self.longest)))
        left, right = rows.cpu().numpy(), others.cpu().numpy()
        for start in range(0, len(left), size):
            part = slice(start, start + size)
            differences = self.x[np.repeat(left[part], count)] - self.x[right[part].ravel()]
            squared[part] = np.asarray(differences.power(2).sum(1)).reshape(-1, count)
        return _to(squared, self.device)


def _torch_csr(x: sparse.csr_matrix) -> Tensor:
    """Return a CSR matrix as torch's own, in float32: its products with dense ones are faster."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the layout is young
        return torch.sparse_csr_tensor(
            torch.from_numpy(x.indptr.astype(np.int64)),
            torch.from_numpy(x.indices.astype(np.int64)),
            torch.from_numpy(x.data.astype(np.float32)),
            size=x.shape,
            check_invariants=False,
        )


def _smallest(
    indices: np.ndarray, values: np.ndarray, excluded: int, count: int
) -> tuple[np.ndarray, float]:
    """Return the indices of the `count` smallest values, and a bound on all others."""
    kept = indices != excluded
    indices, values = indices[kept], values[kept]
    if len(values) <= count:
        return indices, math.inf
    order = np.argpartition(values, count)
    return indices[order[:count]], float(values[order[count]])


def csr_of_latents(latents: SparseLatents) -> sparse.csr_matrix:
    """Return latents by their entries, those at one place added up."""
    values = latents.values.detach().double().cpu().numpy()
    n_points, k = values.shape
    indices = latents.indices.cpu().numpy().ravel()
    starts = np.arange(n_points + 1) * k
    x = sparse.csr_matrix((values.ravel(), indices, starts), shape=(n_points, latents.d_sae))
    x.sum_duplicates()  # what `to_dense` does with an index that occurs twice
    x.eliminate_zeros()
    return x


def csr_of_tensor(points: Tensor) -> sparse.csr_matrix:
    """Return a sparse tensor on the CPU by its entries."""
    if points.layout == torch.sparse_csr:
        parts = (points.col_indices(), points.crow_indices())
        entries = (points.values().double().numpy(), *(part.numpy() for part in parts))
        x = sparse.csr_matrix(entries, shape=tuple(points.shape))
    else:
        values, indices = points.values().double().numpy(), points.indices().numpy()
        x = sparse.csr_matrix((values, tuple(indices)), shape=tuple(points.shape))
    x.eliminate_zeros()
    return x


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
