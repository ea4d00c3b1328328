"""Graphs on a cloud of points: spanning tree, connected components over scales, path lengths."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud, Points
from saerepgeo.geometry.clouds.conversion import AnyPoints, as_cloud, as_float64, count_points
from saerepgeo.geometry.clouds.dense import DenseCloud
from saerepgeo.geometry.clouds.entries import unit_of
from saerepgeo.geometry.clouds.linkage import components_within, spanning_edges
from saerepgeo.geometry.clouds.matrix import MATRIX_POINTS, MatrixCloud
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.types import Estimate, Float, Int

RADIUS_QUANTILE = 0.95
RADIUS_SLACK = 1e-9
"""Relative: the pair whose distance is the radius itself is connected, whatever the rounding."""
SOURCES_PER_BLOCK = 256
"""Rows of the path length matrix that exist at once."""


class SpanningTree(NamedTuple):
    """The N − 1 edges of a tree, in the order in which they were joined to it."""

    edges: Int[Tensor, "edge 2"]
    """Tree end and new end of each edge."""
    lengths: Float[Tensor, "edge"]
    """float64, differentiable in the points."""


def minimum_spanning_tree(points: Points) -> SpanningTree:
    """Return the Euclidean minimum spanning tree, by Prim's algorithm.

    O(N² dim) time; O(N) memory beside more than 2048 points. Edges are chosen by distances from
    scalar products; their lengths are exact and differentiable (0 at a duplicate, not NaN). Those
    of a `Cloud` are its own, without gradient. Fewer than two points have no edges. Raises
    ValueError for integer or non-finite points. Source: Prim 1957, *Shortest Connection Networks
    and Some Generalizations*.

    >>> minimum_spanning_tree(torch.tensor([[0.0], [5.0], [2.0]])).lengths
    tensor([2., 3.], dtype=torch.float64)
    """
    if isinstance(points, Cloud):
        edges = spanning_edges(points)
        return SpanningTree(edges, points.lengths(edges))
    x = as_float64(points)
    unit = unit_of(x)
    x = x / unit
    rows, is_large = x.detach(), len(x) > MATRIX_POINTS
    rows = rows - rows.mean(0) if len(x) else rows
    edges = spanning_edges(DenseCloud(rows) if is_large else MatrixCloud.of_points(rows))
    squared = (x[edges[:, 0]] - x[edges[:, 1]]).square().sum(1)
    # the root has no gradient at 0; half of the tree of a cloud with duplicates lies there
    is_apart = squared > 0
    return SpanningTree(edges, torch.where(is_apart, squared, 1.0).sqrt() * is_apart * unit)


def mst_weight(points: Points) -> Estimate:
    """Return the sum of the edges of the minimum spanning tree (MSTW), differentiable.

    One point: 0. No points: undefined. Duplicates add nothing. Raises as `minimum_spanning_tree`.

    >>> float(mst_weight(torch.tensor([[0.0], [0.0], [5.0]])))
    5.0
    """
    n_points = count_points(points)
    if not n_points:
        return Estimate.undefined("no points")
    return Estimate(minimum_spanning_tree(points).lengths.sum(), n_points, 0)


def betti_0(points: Points, radius: float) -> Estimate:
    """Return β₀(r) = 1 + #{edges of the minimum spanning tree longer than r}.

    The number of connected components of the graph that joins points at most `radius` apart. Not a
    count of clusters: every outlier is a component. No points: undefined. Raises ValueError for a
    negative or NaN radius, and for integer or non-finite points.

    >>> [float(betti_0(torch.tensor([[0.0], [5.0], [2.0]]), r)) for r in (0.0, 2.0, 3.0)]
    [3.0, 2.0, 1.0]
    """
    if not radius >= 0:
        raise ValueError(f"`radius` must be ≥ 0, got {radius}")
    cloud = as_cloud(points)
    if not cloud.n_points:
        return Estimate.undefined("no points")
    return _estimate(cloud, float(components_within(cloud, radius)))


def connection_radius(points: Points, n_neighbors: int = 10) -> float:
    """Return the 95 % quantile over points of the distance to neighbor `n_neighbors`: a scale.

    Scaling the points scales it, so Betti-0 stays. A random geometric graph of k neighbors a point
    is connected once k exceeds about ln N: at k = 10 one cloud of even density is one component up
    to some 20,000 points, while groups of more than k points further apart do count separately.
    `n_neighbors` is capped at N − 1; 0 for fewer than two points. Raises ValueError for
    `n_neighbors` below 1, and for integer or non-finite points.

    >>> round(connection_radius(torch.arange(40.0)[:, None], 2), 6)
    1.05
    """
    cloud = as_cloud(points)
    if cloud.n_points < 2:
        return 0.0
    distances = nearest_neighbors(cloud, min(n_neighbors, cloud.n_points - 1)).distances[:, -1]
    return float(torch.quantile(distances, RADIUS_QUANTILE)) * (1 + RADIUS_SLACK)


def average_geodesic_distance(
    points: Points, n_neighbors: int = 10, sources: Int[Tensor, "source"] | None = None
) -> Estimate:
    """Return the mean shortest path over pairs of points on the neighbor graph (AGD).

    The graph joins i and j where one is among the `n_neighbors` (at most N − 1) nearest neighbors
    of the other, by an edge of their distance; the mean runs over the pairs i < j that a path
    connects. A half circle of N points gives (π/3)(N+1)/(N−1). The mean falls as the graph falls
    apart. With `sources`, indices of points, it runs over the paths from these only: of S random
    points an unbiased estimate, in S/N of the time. Undefined for fewer than two points, and
    where no source has a path. O(N² k log N) time, memory O(N k). Not differentiable. Raises
    ValueError for `n_neighbors` below 1, and for integer or non-finite points. Source: Tenenbaum,
    de Silva & Langford 2000 (Isomap), steps 1 and 2.

    >>> line = torch.arange(10.0)[:, None]
    >>> round(float(average_geodesic_distance(line, 2)), 4)  # 11/3
    3.6667
    """
    cloud, graph = _neighbor_graph(points, n_neighbors)
    if cloud.n_points < 2:
        return Estimate.undefined(f"{cloud.n_points} points have no pairs", cloud.n_points)
    starts = torch.arange(cloud.n_points) if sources is None else sources.cpu()
    if not bool(torch.isin(starts, torch.arange(cloud.n_points)).all()):
        raise ValueError(f"`sources` must be indices of {cloud.n_points} points, got {starts}")
    total, n_paths = 0.0, -len(starts)  # a point's path to itself is none
    for block in starts.split(SOURCES_PER_BLOCK):
        paths = shortest_path(graph, method="D", indices=block.numpy())
        is_path = np.isfinite(paths)
        total += float(paths[is_path].sum())
        n_paths += int(is_path.sum())
    if not n_paths:
        return Estimate.undefined("no path starts at `sources`", cloud.n_points)
    return _estimate(cloud, total / n_paths)


def _estimate(cloud: Cloud, value: float) -> Estimate:
    scalar = torch.tensor(value, dtype=torch.float64, device=cloud.device)
    return Estimate(scalar, cloud.n_points, 0)


def _neighbor_graph(points: AnyPoints, n_neighbors: int) -> tuple[Cloud, csr_matrix]:
    if n_neighbors < 1:
        raise ValueError(f"`n_neighbors` must be at least 1, got {n_neighbors}")
    cloud = as_cloud(points)
    n_points = cloud.n_points
    if n_points < 2:
        return cloud, csr_matrix((n_points, n_points))
    found = nearest_neighbors(cloud, min(n_neighbors, n_points - 1))
    distances, indices = (part.cpu().numpy() for part in found)
    rows, columns = np.repeat(np.arange(n_points), indices.shape[1]), indices.ravel()
    # each pair once: a matrix sums entries given twice; and 0 must stay an edge, not "no edge"
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    _, first = np.unique(low * n_points + high, return_index=True)
    low, high, lengths = low[first], high[first], distances.ravel()[first]
    # both ways: paths in an undirected graph cost SciPy a tenth more time
    ends = np.concatenate([low, high]), np.concatenate([high, low])
    return cloud, csr_matrix((np.tile(lengths, 2), ends), shape=(n_points, n_points))
