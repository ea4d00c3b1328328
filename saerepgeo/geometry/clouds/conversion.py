"""The border: whatever holds points is checked, and becomes a cloud or a matrix."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud, RowCloud
from saerepgeo.geometry.clouds.dense import DenseCloud
from saerepgeo.geometry.clouds.sparse import SparseCloud
from saerepgeo.types import Float, Int, SparseLatents

__all__ = ["as_cloud", "as_float64", "check_finite", "count_points", "take_points"]

SPARSE_SHARE = 0.05
"""A dense matrix on the CPU with at most this share of non-zero entries is searched as sparse."""

AnyPoints = Tensor | SparseLatents | Cloud
"""`Points` before they are checked."""


def check_finite(x: Tensor, name: str = "points") -> None:
    """Raise ValueError unless `x`, of any shape and layout, is floating point and finite."""
    if not x.is_floating_point():
        raise ValueError(f"`{name}` must be floating point, got {x.dtype}: convert with `.float()`")
    # a layout that stores few entries is finite exactly if they are
    stored = x.coalesce() if x.layout == torch.sparse_coo else x
    stored = stored if x.layout == torch.strided else stored.values()
    if not bool(stored.isfinite().all()):
        n_bad = int((~stored.isfinite()).sum())
        raise ValueError(f"`{name}` must be finite, got {n_bad} NaN or infinite entries: drop them")


def as_float64(points: AnyPoints, name: str = "points") -> Float[Tensor, "point dim"]:
    """Return `points` as a dense float64 matrix on its own device; differentiable.

    Takes what the cloud functions take: dense and torch sparse tensors, `SparseLatents`, and clouds
    that know their coordinates, which come up to a shift of all points.

    Raises ValueError for integers, non-finite entries and anything that is not a matrix.
    """
    if isinstance(points, Cloud):
        if not isinstance(points, RowCloud):
            raise ValueError(f"`{name}` must have coordinates, got distances only: pass the points")
        return points.coordinates()
    x = points.to_dense() if isinstance(points, SparseLatents) else points
    if x.ndim != 2:
        raise ValueError(f"`{name}` must be a matrix [point, dim], got shape {tuple(x.shape)}")
    check_finite(x, name)
    return (x if x.layout == torch.strided else x.to_dense()).double()


def count_points(points: AnyPoints) -> int:
    """Return the number of points, whatever holds them."""
    if isinstance(points, Cloud):
        return points.n_points
    return len(points.values if isinstance(points, SparseLatents) else points)


def take_points(points: AnyPoints, rows: Int[Tensor, "kept"]) -> AnyPoints:
    """Return the points `rows`, held in the same way."""
    if isinstance(points, Cloud):
        return points.take(rows)
    if isinstance(points, SparseLatents):
        return SparseLatents(points.values[rows], points.indices[rows], points.d_sae)
    if points.layout != torch.strided:
        return points.to_sparse_coo().index_select(0, rows).coalesce()
    return points[rows]


def as_cloud(points: AnyPoints) -> Cloud:
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
    """Return latents by their entries, those at one place added up."""
    values = latents.values.detach().double().cpu().numpy()
    n_points, k = values.shape
    indices = latents.indices.cpu().numpy().ravel()
    starts = np.arange(n_points + 1) * k
    # a copy: what follows sorts in place, and float64 entries would be the caller's own
    shape = (n_points, latents.d_sae)
    x = sparse.csr_matrix((values.ravel(), indices, starts), shape=shape, copy=True)
    x.sum_duplicates()  # what `to_dense` does with an index that occurs twice
    x.eliminate_zeros()
    return x


def _csr_of_tensor(points: Tensor) -> sparse.csr_matrix:
    """Return a sparse tensor on the CPU by its entries."""
    if points.layout == torch.sparse_csr:
        parts = (points.col_indices(), points.crow_indices())
        entries = (points.values().double().numpy(), *(part.numpy() for part in parts))
        x = sparse.csr_matrix(entries, shape=tuple(points.shape), copy=True)
    else:
        values, indices = points.values().double().numpy(), points.indices().numpy()
        x = sparse.csr_matrix((values, tuple(indices)), shape=tuple(points.shape), copy=True)
    x.eliminate_zeros()
    return x
