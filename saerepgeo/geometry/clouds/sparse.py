"""Points with few entries: what a cloud of latents is searched as."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import RowCloud
from saerepgeo.types import Float, Int


class SparseCloud(RowCloud):
    """Points as rows of a CSR matrix on the CPU, times `scale`; centering would fill it."""

    rows_at_once = 256
    entries_at_once = 1 << 21  # 32 bytes each while they are subtracted

    def __init__(self, x: sparse.csr_matrix, device: torch.device, scale: float = 1.0) -> None:
        super().__init__(x, torch.from_numpy(x.data), scale, device)
        self.norms = torch.from_numpy(np.asarray(self.x.multiply(self.x).sum(1)).ravel())
        self.n_terms = int(np.diff(self.x.indptr).max(initial=0))

    def take(self, index: Int[Tensor, "kept"]) -> "SparseCloud":
        return SparseCloud(self.x[index.cpu().numpy()], self.device, self.scale)

    def distances_from(self, index: int) -> np.ndarray:
        row, span = np.zeros(self.x.shape[1]), slice(*self.x.indptr[index : index + 2])
        row[self.x.indices[span]] = self.x.data[span]
        norms = self.norms.numpy()
        squares = norms + norms[index] - 2 * (self.x @ row)
        return np.sqrt(np.maximum(squares, 0.0)) * self.scale

    def dense(self, index: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        return torch.from_numpy(self.x[index.cpu().numpy()].toarray()).to(self.device)

    def _gram_rows(self, precision: torch.dtype) -> Callable[[Tensor], Tensor]:
        x, norms = _torch_csr(self.x, precision), self.norms.to(precision)

        def of_rows(rows: Tensor) -> Tensor:
            dense = torch.from_numpy(self.x[rows.numpy()].toarray()).to(precision)
            return (x @ dense.T.contiguous()).T.contiguous().mul_(-2).add_(norms)

        return of_rows

    def _squares(self, rows: Tensor, others: Tensor) -> Tensor:
        left, right = rows.repeat_interleave(others.shape[1]).cpu(), others.flatten().cpu()
        differences = self.x[left.numpy()] - self.x[right.numpy()]
        squares = np.asarray(differences.power(2).sum(1)).reshape(others.shape)
        return torch.from_numpy(squares).to(self.device)


def _torch_csr(x: sparse.csr_matrix, precision: torch.dtype) -> Tensor:
    """Return a CSR matrix as torch's own, whose products with dense ones are faster."""
    indptr, indices = (torch.from_numpy(part.astype(np.int64)) for part in (x.indptr, x.indices))
    data = torch.from_numpy(x.data).to(precision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the layout is young
        return torch.sparse_csr_tensor(indptr, indices, data, x.shape, check_invariants=False)
