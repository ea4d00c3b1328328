"""The border: whatever holds points becomes a cloud."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.checks import as_float64, check_finite
from saerepgeo.geometry.clouds.cloud import Cloud
from saerepgeo.geometry.clouds.dense import DenseCloud
from saerepgeo.geometry.clouds.sparse import SparseCloud
from saerepgeo.types import SparseLatents

__all__ = ["as_cloud"]

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
    x = sparse.csr_matrix((values.ravel(), indices, starts), shape=(n_points, latents.d_sae))
    x.sum_duplicates()  # what `to_dense` does with an index that occurs twice
    x.eliminate_zeros()
    return x


def _csr_of_tensor(points: Tensor) -> sparse.csr_matrix:
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
