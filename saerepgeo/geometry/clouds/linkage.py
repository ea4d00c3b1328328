"""Single linkage of a cloud: the heights at which its points grow together, as balls do.

In plain distances these are the edges of the minimum spanning tree; with core distances, those of
the tree that HDBSCAN reads its clusters off.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform
from torch import Tensor

from saerepgeo.geometry.clouds.dense import Cloud, DenseCloud, RowCloud, SparseCloud
from saerepgeo.geometry.clouds.matrix import MatrixCloud
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.types import Float

__all__ = ["Linkage", "components_at", "single_linkage"]


class Linkage(NamedTuple):
    """A tree whose edges join the points in ascending order, N − 1 of them."""

    edges: np.ndarray
    """Two points of the groups that each edge joins, [edge, 2]."""
    heights: np.ndarray
    """float64."""


def single_linkage(cloud: Cloud, core: Float[Tensor, "point"] | None = None) -> Linkage:
    """Return the single linkage tree of d(i, j) = max(‖x_i − x_j‖, core_i, core_j).

    Heights are those of the minimum spanning tree of d, up to roundings of float32 where two edges
    differ by no more. Without `core` the
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


def components_at(cloud: Cloud, radius: float) -> int:
    """Return the number of connected components of the graph of distances ≤ `radius`.

    Of a `MatrixCloud` from its tree. Else the edges to the neighbors that the cloud has found
    come first; only points outside the largest component so far are measured against all others:
    any other edge that could join two components has such an end. Exact but for distances that
    equal the radius up to roundings of float32.
    """
    if isinstance(cloud, MatrixCloud) or cloud.n_points < 2:
        heights = single_linkage(cloud).heights
        return (1 + int((heights > radius).sum())) if cloud.n_points else 0
    assert isinstance(cloud, RowCloud)
    n_points = cloud.n_points
    found = nearest_neighbors(cloud, 1) if cloud.found is None else cloud.found
    is_edge = (found.distances <= radius).cpu().numpy()
    ends = [np.stack([is_edge.nonzero()[0], found.indices.cpu().numpy()[is_edge]])]
    labels = _components(ends, n_points)[1]
    rows, limit = _rows_of(cloud), (radius / cloud.scale) ** 2
    for i in np.flatnonzero(labels != np.bincount(labels).argmax()).tolist():
        near = np.flatnonzero(rows(i) <= limit)
        ends.append(np.stack([np.full(len(near), i), near]))
    return int(_components(ends, n_points)[0])


def _components(ends: list[np.ndarray], n_points: int) -> tuple[int, np.ndarray]:
    rows, columns = np.concatenate(ends, axis=1)
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(n_points, n_points))
    return connected_components(graph, directed=False)


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
    squared_floor = ((floor / cloud.scale) ** 2).astype(np.float32)
    outside = np.full(n_points, np.inf, dtype=np.float32)
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
        return lambda i: torch.addmv(norms + norms[i], x, x[i], alpha=-2).float().cpu().numpy()
    assert isinstance(cloud, SparseCloud)
    return _sparse_rows(cloud)


def _sparse_rows(cloud: SparseCloud) -> Callable[[int], np.ndarray]:
    # in float32: the tree is the least one up to roundings, its edges are measured afterwards
    x, norms = cloud.x.astype(np.float32), cloud.norms.astype(np.float32)
    row = np.zeros(x.shape[1], dtype=np.float32)

    def squares(i: int) -> np.ndarray:
        span = slice(*x.indptr[i : i + 2])
        row[x.indices[span]] = -2 * x.data[span]
        partial = x @ row
        row[x.indices[span]] = 0.0
        partial += norms + norms[i]
        return partial

    return squares


def _measured(cloud: RowCloud, edges: np.ndarray) -> np.ndarray:
    """Return the lengths of the edges by differences, exact to float64."""
    ends = torch.from_numpy(edges).to(cloud.device)
    squared = cloud.squared_distances(ends[:, 0], ends[:, 1:])[:, 0]
    return (squared.sqrt() * cloud.scale).cpu().numpy()
