"""The border: whatever holds points is checked, and becomes a cloud or a matrix."""

import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud, RowCloud
from saerepgeo.geometry.clouds.dense import DenseCloud
from saerepgeo.geometry.clouds.entries import centered, check_matrix
from saerepgeo.geometry.clouds.sparse import SparseCloud
from saerepgeo.types import Float, Int, SparseLatents

SPARSE_SHARE = 0.05
"""A dense matrix on the CPU with at most this share of non-zero entries is searched as sparse."""

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
AnyPoints = Tensor | SparseLatents | Cloud
"""`Points` before they are checked."""


def check_points(points: AnyPoints, name: str = "points") -> None:
    """Raise ValueError unless points, whatever holds them, are a finite floating point matrix."""
    if isinstance(points, SparseLatents):
        points.check_places()
    if not isinstance(points, Cloud):
        check_matrix(points.values if isinstance(points, SparseLatents) else points, name)


def as_float64(points: AnyPoints, name: str = "points") -> Float[Tensor, "point dim"]:
    """Return `points` as a dense float64 matrix on its own device; differentiable.

    Takes what the cloud functions take; clouds come up to a shift of all points. Raises ValueError
    for integers, non-finite entries, what is no matrix, and clouds that know distances only.
    """
    if isinstance(points, Cloud):
        if not isinstance(points, RowCloud):
            raise ValueError(f"`{name}` must have coordinates, got distances only: pass the points")
        return points.coordinates()
    check_points(points, name)
    x = points.to_dense() if isinstance(points, SparseLatents) else points
    return (x if x.layout == torch.strided else x.to_dense()).double()


def count_points(points: AnyPoints) -> int:
    """Return the number of points, whatever holds them."""
    if isinstance(points, Cloud):
        return points.n_points
    x = points.values if isinstance(points, SparseLatents) else points
    if not x.ndim:
        raise ValueError("`points` must be a matrix [point, dim], got a scalar")
    return len(x)


def check_labels_of(points: AnyPoints, labels: Tensor, name: str = "labels") -> None:
    """Raise ValueError unless every point has an integer label."""
    n_points, is_integer = count_points(points), labels.dtype in INTEGERS
    if labels.shape != (n_points,) or not is_integer:
        got = f"shape {tuple(labels.shape)} for {n_points} points" if is_integer else labels.dtype
        raise ValueError(f"`{name}` must be integers, one entry a point, got {got}.")


def take_points(points: AnyPoints, rows: Int[Tensor, "kept"]) -> AnyPoints:
    """Return the points `rows`, held in the same way."""
    if isinstance(points, Cloud):
        return points.take(rows)
    if isinstance(points, SparseLatents):
        return SparseLatents(points.values[rows], points.indices[rows], points.d_sae)
    if points.layout != torch.strided:
        return points.to_sparse_coo().index_select(0, rows.to(points.device)).coalesce()
    return points[rows]


def as_cloud(points: AnyPoints) -> Cloud:
    """Return the cloud of `points`; sparse where that saves most of the work.

    Raises ValueError for integers, non-finite entries and anything that is not a matrix.
    """
    if isinstance(points, Cloud):
        return points
    check_points(points)
    if isinstance(points, SparseLatents):
        rows = torch.arange(len(points.values), device=points.indices.device)
        places = torch.stack([rows[:, None].expand_as(points.indices), points.indices]).flatten(1)
        shape, values = (len(rows), points.d_sae), points.values.double().flatten()
        # adds up what stands at one place, as `to_dense` has it
        points = torch.sparse_coo_tensor(places, values, shape, check_invariants=False).coalesce()
    if points.layout == torch.strided and not _has_few_entries(points):
        return DenseCloud(*centered(points.detach().double()))
    coo = points.detach().to_sparse_coo().coalesce()
    entries = coo.values().double().cpu().numpy(), coo.indices().cpu().numpy()
    csr = sparse.csr_matrix(entries, shape=tuple(coo.shape))
    csr.eliminate_zeros()
    return SparseCloud(csr, coo.device)


def _has_few_entries(points: Tensor) -> bool:
    """Return whether a wide matrix on the CPU is better searched as a sparse one."""
    if points.device.type != "cpu" or points.shape[1] <= 100:
        return False
    return 0 < int(points.count_nonzero()) <= SPARSE_SHARE * points.numel()
