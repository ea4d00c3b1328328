"""Clouds of points as the neighbour search sees them: dense or sparse, centred and scaled.

A cloud nominates candidates by the Gram matrix, ‖x‖² + ‖y‖² − 2⟨x,y⟩, which is fast and loses
digits, and measures them by differences in float64, which is slow and exact.
"""

import math
import warnings
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.points import as_float64, check_finite
from saerepgeo.types import Float, Int, SparseLatents

__all__ = [
    "Cloud",
    "DenseCloud",
    "Neighbours",
    "Nomination",
    "RowCloud",
    "SparseCloud",
    "as_cloud",
]

BLOCK_BYTES = 1 << 26
"""Size of a temporary array, about; two or three of them are alive at once."""
CACHE_BYTES = 1 << 22
"""Size of the differences of points that are formed at once: about a cache."""
DENSE_ROWS = 256
"""Rows that are made dense at once, to be multiplied with all points."""
SPARSE_SHARE = 0.05
"""A dense matrix on the CPU with at most this share of non-zero entries is searched as sparse."""


class Nomination(NamedTuple):
    """Points that may be the nearest ones, and what is known of all others."""

    indices: Int[Tensor, "row candidate"]
    bounds: Float[Tensor, "row"]
    """No point left out is nearer than this squared distance."""


class Neighbours(NamedTuple):
    """The nearest other points of each point, nearest first."""

    distances: Float[Tensor, "point k"]
    """float64."""
    indices: Int[Tensor, "point k"]


class Cloud(ABC):
    """N points, and the neighbours found so far: figures of one cloud share them."""

    n_points: int
    device: torch.device
    found: Neighbours | None = None
    """In units of the points as given; filled by `search`."""

    @abstractmethod
    def take(self, index: Int[Tensor, "kept"]) -> "Cloud":
        """Return the cloud of the points `index`."""

    @abstractmethod
    def size(self) -> float:
        """Return the root mean square distance of the points from their centroid."""


class RowCloud(Cloud):
    """Points given by their coordinates, searched block by block."""

    scale: float
    """Distances between the points as given = distances here · `scale`."""
    precisions: tuple[torch.dtype, ...]
    """In which candidates can be nominated, the fast one first."""

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
        """Return ‖x_row − x_other‖², exact to float64."""

    def size(self) -> float:
        """Return the root mean square distance of the points from their centroid."""
        if not self.n_points:
            return 0.0
        blocks = torch.arange(self.n_points, device=self.device).split(1024)
        mean = torch.stack([self.dense(block).sum(0) for block in blocks]).sum(0) / self.n_points
        total = sum(float((self.dense(block) - mean).square().sum()) for block in blocks)
        return self.scale * (total / self.n_points) ** 0.5


def as_cloud(points: Tensor | SparseLatents | Cloud) -> Cloud:
    """Return the cloud of `points`; sparse where that saves most of the work.

    Raises ValueError for integers, non-finite entries and anything that is not a matrix.
    """
    if isinstance(points, Cloud):
        return points
    if isinstance(points, SparseLatents):
        check_finite(points.values)
        return SparseCloud(_csr_of_latents(points), points.values.device)
    if points.layout != torch.strided:
        rows = points.detach()
        rows = rows if rows.layout == torch.sparse_csr else rows.to_sparse_coo().coalesce()
        check_finite(rows)
        return SparseCloud(_csr_of_tensor(rows.cpu()), points.device)
    entries = _few_entries(points)
    if entries is not None:
        return SparseCloud(entries, points.device)
    x = as_float64(points).detach()
    return DenseCloud(x - x.mean(0)) if len(x) else DenseCloud(x)


class DenseCloud(RowCloud):
    """Points as rows of a float64 matrix; centred by whoever makes it."""

    precisions: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

    def __init__(self, x: Float[Tensor, "point dim"]) -> None:
        top = float(x.abs().max()) if x.numel() else 0.0
        self.scale = _power_of_two(top)
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


class SparseCloud(RowCloud):
    """Points as rows of a CSR matrix; not centred, which would fill it."""

    precisions: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

    def __init__(self, x: sparse.csr_matrix, device: torch.device) -> None:
        top = float(abs(x.data).max()) if x.nnz else 0.0
        self.scale = _power_of_two(top)
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
        indices, bounds = [], []
        for start in range(0, len(numbers), DENSE_ROWS):
            block = numbers[start : start + DENSE_ROWS]
            dense = torch.from_numpy(self.x[block].astype(np.float32).toarray())
            partial = (single @ dense.T.contiguous()).T.contiguous().mul_(-2).add_(norms)
            partial[torch.arange(len(block)), torch.from_numpy(block)] = torch.inf
            nearest = partial.topk(count, largest=False)
            indices.append(nearest.indices)
            bounds.append(nearest.values[:, -1].double() + torch.from_numpy(self.norms[block]))
        error = torch.from_numpy(self._error(numbers, float(np.finfo(np.float32).eps)))
        return Nomination(
            torch.cat(indices).to(self.device), (torch.cat(bounds) - error).to(self.device)
        )

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


def _power_of_two(top: float) -> float:
    """Return a scale that squares may go with, by a factor that rounds nothing."""
    return math.ldexp(1.0, max(math.frexp(top)[1], -1000)) if top > 0 else 1.0


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


def _csr_of_latents(latents: SparseLatents) -> sparse.csr_matrix:
    values = latents.values.detach().double().cpu().numpy()
    n_points, k = values.shape
    indices = latents.indices.cpu().numpy().ravel()
    starts = np.arange(n_points + 1) * k
    x = sparse.csr_matrix((values.ravel(), indices, starts), shape=(n_points, latents.d_sae))
    x.sum_duplicates()  # what `to_dense` does with an index that occurs twice
    x.eliminate_zeros()
    return x


def _csr_of_tensor(points: Tensor) -> sparse.csr_matrix:
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
