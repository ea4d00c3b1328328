"""Single linkage of a cloud: the heights at which its points grow together, as balls do.

In plain distances these are the edges of the minimum spanning tree; with core distances, those of
the tree that HDBSCAN reads its clusters off.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from saerepgeo.geometry.clouds import Cloud, DenseCloud, RowCloud, SparseCloud
from saerepgeo.geometry.distances import MatrixCloud
from saerepgeo.types import Float

__all__ = ["Linkage", "single_linkage"]

PRICE = 10.0
"""Of an entry of a sparse product against one of a product with a dense vector, about."""


class Linkage(NamedTuple):
    """A tree whose edges join the points in ascending order, N − 1 of them."""

    edges: np.ndarray
    """Two points of the groups that each edge joins, [edge, 2]."""
    heights: np.ndarray
    """float64."""


def single_linkage(cloud: Cloud, core: Float[Tensor, "point"] | None = None) -> Linkage:
    """Return the single linkage tree of d(i, j) = max(‖x_i − x_j‖, core_i, core_j).

    Heights are those of the minimum spanning tree of d, exact to rounding. Without `core` the
    distances themselves. O(N²) distances; memory O(N) beside the cloud, but for a `MatrixCloud`.
    Fewer than two points have no edges.
    """
    if cloud.n_points < 2:
        return Linkage(np.empty((0, 2), dtype=np.int64), np.empty(0))
    floor = np.zeros(cloud.n_points) if core is None else core.double().cpu().numpy()
    if isinstance(cloud, MatrixCloud):
        return _of_matrix(cloud, floor)
    assert isinstance(cloud, RowCloud)
    return _of_rows(cloud, floor)


def _of_matrix(cloud: MatrixCloud, floor: np.ndarray) -> Linkage:
    matrix = cloud.distances.cpu().numpy()
    if floor.any():
        matrix = np.maximum(np.maximum(matrix, floor[:, None]), floor)
    merges = linkage(squareform(matrix, checks=False), "single")
    # any member stands for a group: heights along the tree's paths stay
    members = list(range(cloud.n_points))
    edges = []
    for left, right in merges[:, :2].astype(np.int64).tolist():
        edges.append((members[left], members[right]))
        members.append(members[left])
    return Linkage(np.array(edges, dtype=np.int64), merges[:, 2])


def _of_rows(cloud: RowCloud, floor: np.ndarray) -> Linkage:
    """Grow the tree point by point (Prim), from one row of distances at a time."""
    n_points = cloud.n_points
    squared_floor = (floor / cloud.scale) ** 2
    outside = np.full(n_points, np.inf)
    parents = np.zeros(n_points, dtype=np.int64)
    is_in = np.zeros(n_points, dtype=bool)
    edges = np.empty((n_points - 1, 2), dtype=np.int64)
    rows = _rows_of(cloud)
    newest = 0
    for number in range(n_points - 1):
        is_in[newest] = True
        squares = np.maximum(rows(newest), squared_floor)
        np.maximum(squares, squared_floor[newest], out=squares)
        squares[is_in] = np.inf
        outside[newest] = np.inf
        is_nearer = squares < outside
        parents[is_nearer] = newest
        outside[is_nearer] = squares[is_nearer]
        newest = int(outside.argmin())
        edges[number] = parents[newest], newest
    heights = np.maximum(_measured(cloud, edges), floor[edges].max(1))
    order = heights.argsort(kind="stable")
    return Linkage(edges[order], heights[order])


def _rows_of(cloud: RowCloud) -> Callable[[int], np.ndarray]:
    """Return a function that gives the squared distances of one point to all, by Gram products."""
    if isinstance(cloud, DenseCloud):
        x, norms = cloud.x, cloud.norms
        return lambda i: torch.addmv(norms + norms[i], x, x[i], alpha=-2).cpu().numpy()
    assert isinstance(cloud, SparseCloud)
    return _sparse_rows(cloud)


def _sparse_rows(cloud: SparseCloud) -> Callable[[int], np.ndarray]:
    x, transposed, norms = cloud.x, cloud.transposed, cloud.norms
    # entries that the columns of a row hold: the work of a sparse product, whose entries cost more
    # than those of a product with all rows
    frequency = np.diff(transposed.indptr).astype(np.float64)
    work = (x != 0) @ frequency
    row = np.zeros(x.shape[1])

    def squares(i: int) -> np.ndarray:
        partial = norms + norms[i]
        if PRICE * work[i] < x.nnz:
            overlap = x[i] @ transposed
            partial[overlap.indices] -= 2 * overlap.data
            return partial
        span = slice(*x.indptr[i : i + 2])
        row[x.indices[span]] = x.data[span]
        partial -= 2 * (x @ row)
        row[x.indices[span]] = 0.0
        return partial

    return squares


def _measured(cloud: RowCloud, edges: np.ndarray) -> np.ndarray:
    """Return the lengths of the edges by differences, exact to float64."""
    ends = torch.from_numpy(edges).to(cloud.device)
    squared = cloud.squared_distances(ends[:, 0], ends[:, 1:])[:, 0]
    return (squared.sqrt() * cloud.scale).cpu().numpy()
