"""Points with few entries: what a cloud of latents is searched as."""

import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import BLOCK_BYTES, Cloud, Nomination, RowCloud, power_of_two
from saerepgeo.types import Float, Int

__all__ = ["SparseCloud"]

DENSE_ROWS = 256
"""Rows that are made dense at once, to be multiplied with all points."""


class SparseCloud(RowCloud):
    """Points as rows of a CSR matrix; not centered, which would fill it."""

    def __init__(self, x: sparse.csr_matrix, device: torch.device) -> None:
        top = float(abs(x.data).max()) if x.nnz else 0.0
        self.scale = power_of_two(top)
        self.x = x / self.scale
        self.n_points, self.device = x.shape[0], device
        self.norms = np.asarray(self.x.multiply(self.x).sum(1)).ravel()
        self.longest = int(np.diff(self.x.indptr).max(initial=0))

    def take(self, index: Int[Tensor, "kept"]) -> "Cloud":
        taken = SparseCloud(self.x[index.cpu().numpy()], self.device)
        taken.scale *= self.scale
        return taken

    def dense(self, index: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        return _to(self.x[index.cpu().numpy()].toarray(), self.device)

    def nominate(self, rows: Int[Tensor, "row"], count: int, precision: torch.dtype) -> Nomination:
        """Nominate from products of all points with blocks of dense rows."""
        single = _torch_csr(self.x, precision)
        norms = torch.from_numpy(self.norms).to(precision)
        numbers = rows.cpu().numpy()
        # what outlives a block is there before it: large blocks between small ones that stay would
        # pile up in the heap
        indices = torch.empty(len(numbers), count, dtype=torch.long)
        farthest = torch.empty(len(numbers), dtype=precision)
        squares = torch.empty(DENSE_ROWS, self.n_points, dtype=precision)
        for start in range(0, len(numbers), DENSE_ROWS):
            block = numbers[start : start + DENSE_ROWS]
            dense = torch.from_numpy(self.x[block].toarray()).to(precision)
            partial = squares[: len(block)].copy_((single @ dense.T.contiguous()).T)
            partial.mul_(-2).add_(norms)
            partial[torch.arange(len(block)), torch.from_numpy(block)] = torch.inf
            nearest = partial.topk(count, largest=False)
            indices[start : start + len(block)] = nearest.indices
            farthest[start : start + len(block)] = nearest.values[:, -1]
        # what Gram distances from these rows can be off by, at most
        reach = np.sqrt(self.norms[numbers]) + np.sqrt(self.norms.max())
        error = (self.longest + 8) * torch.finfo(precision).eps * reach**2
        bounds = farthest.double() + torch.from_numpy(self.norms[numbers] - error)
        return Nomination(indices.to(self.device), bounds.to(self.device))

    def distances_from(self, index: int) -> np.ndarray:
        row, span = np.zeros(self.x.shape[1]), slice(*self.x.indptr[index : index + 2])
        row[self.x.indices[span]] = self.x.data[span]
        squares = self.norms + self.norms[index] - 2 * (self.x @ row)
        return np.sqrt(np.maximum(squares, 0.0)) * self.scale

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


def _torch_csr(x: sparse.csr_matrix, precision: torch.dtype) -> Tensor:
    """Return a CSR matrix as torch's own, whose products with dense ones are faster."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the layout is young
        return torch.sparse_csr_tensor(
            torch.from_numpy(x.indptr.astype(np.int64)),
            torch.from_numpy(x.indices.astype(np.int64)),
            torch.from_numpy(x.data).to(precision),
            size=x.shape,
            check_invariants=False,
        )


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
