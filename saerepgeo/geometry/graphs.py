"""Graphs on a cloud of points: spanning tree, connected components over scales, path lengths."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, shortest_path
from torch import Tensor

from saerepgeo.geometry.checks import as_float64
from saerepgeo.geometry.clouds.dense import Cloud, as_cloud
from saerepgeo.geometry.clouds.linkage import single_linkage
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.types import Estimate, Float, Int, SparseLatents

__all__ = [
    "GeodesicEstimate",
    "SpanningTree",
    "average_geodesic_distance",
    "betti_0",
    "connection_radius",
    "minimum_spanning_tree",
    "mst_weight",
    "persistence_0",
]

NO_GRAM = "donot_use_mm_for_euclid_dist"
TREE_DIM, MATRIX_POINTS = 16, 4096
"""Spanning trees of so few points in more dimensions start from their distance matrix, 128 MiB at
most; of more points, no matrix is held."""
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


class GeodesicEstimate(NamedTuple):
    """A mean path length together with the graph it was measured on."""

    value: Tensor
    """float64 scalar; NaN exactly where `reason` says why."""
    n_components: int
    """Connected components of the neighbor graph; pairs between them have no path."""
    n_used: int
    """Pairs with a path."""
    n_dropped: int
    """Pairs without one."""
    reason: str | None = None

    def __float__(self) -> float:
        return float(self.value)


def minimum_spanning_tree(points: Float[Tensor, "point dim"]) -> SpanningTree:
    """Return the Euclidean minimum spanning tree, by Prim's algorithm.

    O(N² dim) time; O(N) memory beside the points where there are more than 4096. The edges are
    chosen without gradient; their lengths are differentiable in the points (0 at a duplicate, not
    NaN).

    Fewer than two points have no edges; duplicates are joined by edges of length 0. Raises
    ValueError for integer or non-finite points.

    Source: Prim 1957, *Shortest Connection Networks and Some Generalizations*.

    >>> minimum_spanning_tree(torch.tensor([[0.0], [5.0], [2.0]])).lengths
    tensor([2., 3.], dtype=torch.float64)
    """
    x = as_float64(points)
    edges = _prim(x.detach())
    squared = (x[edges[:, 0]] - x[edges[:, 1]]).square().sum(1)
    # the root has no gradient at 0; half of the tree of a cloud with duplicates lies there
    is_apart = squared > 0
    lengths = torch.where(is_apart, squared, 1.0).sqrt() * is_apart
    return SpanningTree(edges, lengths)


def mst_weight(points: Float[Tensor, "point dim"]) -> Float[Tensor, ""]:
    """Return the sum of the edges of the minimum spanning tree (MSTW), differentiable.

    0 for fewer than two points; duplicates add nothing. Raises as `minimum_spanning_tree`.

    >>> mst_weight(torch.tensor([[0.0], [0.0], [5.0]]))
    tensor(5., dtype=torch.float64)
    """
    return minimum_spanning_tree(points).lengths.sum()


def persistence_0(points: Float[Tensor, "point dim"]) -> Float[Tensor, "edge"]:
    """Return the N − 1 finite death times of connected components as balls grow, ascending.

    Vietoris–Rips filtration by distance (not by radius of balls, which is half of it): in
    dimension 0 the deaths are the edges of the minimum spanning tree. One component never dies.
    Empty for fewer than two points. Differentiable; raises as `minimum_spanning_tree`.

    >>> persistence_0(torch.tensor([[0.0], [5.0], [2.0]]))
    tensor([2., 3.], dtype=torch.float64)
    """
    return minimum_spanning_tree(points).lengths.sort().values


def betti_0(
    points: Float[Tensor, "point dim"] | SparseLatents | Cloud,
    radius: float | Float[Tensor, "*scale"],
) -> Int[Tensor, "*scale"]:
    """Return β₀(r) = 1 + #{edges of the minimum spanning tree longer than r}.

    The number of connected components of the graph that joins points at most `radius` apart. This
    is not a count of clusters: β₀ counts every outlier as a component, says nothing without its
    radius, and falls to 1 as the radius grows. Report it beside `cluster`, not instead of it.

    No points give 0, one point 1. Raises ValueError for a negative or NaN radius, and as
    `minimum_spanning_tree`.

    >>> betti_0(torch.tensor([[0.0], [5.0], [2.0]]), torch.tensor([0.0, 2.0, 3.0]))
    tensor([3, 2, 1])
    """
    is_dense = isinstance(points, Tensor) and points.layout == torch.strided
    cloud = None if is_dense else as_cloud(points)
    deaths = (
        persistence_0(points).detach()  # type: ignore[arg-type]
        if cloud is None
        else torch.from_numpy(single_linkage(cloud).heights.copy()).to(cloud.device)
    )
    n_points = len(points) if cloud is None else cloud.n_points  # type: ignore[arg-type]
    radii = torch.as_tensor(radius, dtype=torch.float64, device=deaths.device)
    if not bool((radii >= 0).all()):
        raise ValueError(f"`radius` must be ≥ 0, got {radius}")
    if not n_points:
        return torch.zeros_like(radii, dtype=torch.long)
    return 1 + len(deaths) - torch.searchsorted(deaths, radii, right=True)


def connection_radius(
    points: Float[Tensor, "point dim"] | SparseLatents | Cloud, n_neighbors: int = 10
) -> float:
    """Return the 95 % quantile over points of the distance to neighbor `n_neighbors`: a scale.

    A radius without units of its own: scaling the points scales it, so Betti-0 stays. A random
    geometric graph in which points have k neighbors on average is connected once k exceeds about
    ln N; with k = 10 one cloud of even density is one component up to some 20,000 points, while
    groups of more than k points that lie further apart than their own neighbors do count
    separately.

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
    points: Float[Tensor, "point dim"] | SparseLatents | Cloud,
    n_neighbors: int = 10,
    sources: Int[Tensor, "source"] | None = None,
) -> GeodesicEstimate:
    """Return the mean shortest path over pairs of points on the neighbor graph (AGD).

    The graph joins i and j where one is among the `n_neighbors` nearest neighbors of the other, by
    an edge of their distance; the mean runs over the pairs i < j that a path connects. It differs
    from the mean distance as far as the set bends: a half circle of N points gives
    (π/3)(N+1)/(N−1).

    With several components the mean is one within components, and falls as the graph falls apart:
    read it with `n_components`. `n_neighbors` = k is capped at N − 1. NaN with a reason for fewer
    than two points, and where no source has a path. O(N² k log N) time, memory O(N k). Not
    differentiable.

    With `sources`, indices of points, the mean runs over the paths from these to all others only,
    and `n_used` counts them: of S points drawn at random an unbiased estimate, in S/N of the time.

    Raises ValueError for `n_neighbors` below 1, and for integer or non-finite points.

    Source: Tenenbaum, de Silva & Langford 2000 (Isomap), steps 1 and 2.

    >>> line = torch.arange(10.0)[:, None]
    >>> round(float(average_geodesic_distance(line, 2)), 4)  # 11/3
    3.6667
    """
    if n_neighbors < 1:
        raise ValueError(f"`n_neighbors` must be at least 1, got {n_neighbors}")
    cloud = as_cloud(points)
    n_points = cloud.n_points
    if n_points < 2:
        undefined = Estimate.undefined(f"{n_points} points have no pairs")
        return GeodesicEstimate(undefined.value, n_points, 0, 0, undefined.reason)
    found = nearest_neighbors(cloud, min(n_neighbors, n_points - 1))
    graph = _symmetric_graph(found.distances.cpu().numpy(), found.indices.cpu().numpy())
    n_components = int(connected_components(graph, directed=False)[0])
    starts = np.arange(n_points) if sources is None else sources.cpu().numpy()
    total, n_paths = 0.0, 0
    for first in range(0, len(starts), SOURCES_PER_BLOCK):
        block = starts[first : first + SOURCES_PER_BLOCK]
        paths = shortest_path(graph, method="D", directed=False, indices=block)
        is_path = np.isfinite(paths)
        total += float(paths[is_path].sum())
        n_paths += int(is_path.sum()) - len(block)
    # every pair has two ends, and is one
    share = 2 if sources is None else 1
    n_pairs = len(starts) * (n_points - 1) // share
    if not n_paths:
        undefined = Estimate.undefined("no path starts at `sources`")
        return GeodesicEstimate(undefined.value, n_components, 0, n_pairs, undefined.reason)
    mean = torch.tensor(total / n_paths, dtype=torch.float64, device=found.distances.device)
    return GeodesicEstimate(mean, n_components, n_paths // share, n_pairs - n_paths // share)


def _prim(x: Tensor) -> Tensor:
    if x.shape[1] > TREE_DIM and 2 <= len(x) <= MATRIX_POINTS:
        return _prim_of_matrix(x - x.mean(0))
    n_points = len(x)
    edges = torch.empty(max(n_points - 1, 0), 2, dtype=torch.long, device=x.device)
    if n_points < 2:
        return edges
    # points not in the tree yet, their distance to it, and the tree point at that distance
    outside, names = x[1:].clone(), torch.arange(1, n_points, device=x.device)
    distances = x.new_full((n_points - 1,), torch.inf)
    parents = torch.zeros_like(names)
    current, newest = x[:1], names.new_zeros(())
    for n_left in range(n_points - 1, 0, -1):
        to_newest = torch.cdist(current, outside[:n_left], compute_mode=NO_GRAM)[0]
        is_nearer = to_newest < distances[:n_left]
        parents[:n_left].masked_fill_(is_nearer, newest)
        torch.minimum(distances[:n_left], to_newest, out=distances[:n_left])
        nearest = distances[:n_left].argmin()
        edges[n_left - 1, 0], edges[n_left - 1, 1] = parents[nearest], names[nearest]
        current, newest = outside[nearest, None].clone(), names[nearest].clone()
        for state in (outside, names, distances, parents):
            state[nearest] = state[n_left - 1]  # the last one fills the hole
    return edges.flip(0)


def _prim_of_matrix(x: Tensor) -> Tensor:
    """Choose the edges by Gram distances: off by 1e-8 of the cloud's size, and much faster."""
    matrix = torch.cdist(x, x)
    outside = torch.ones(len(x), dtype=torch.bool, device=x.device)
    distances, parents = matrix[0].clone(), torch.zeros_like(outside, dtype=torch.long)
    edges = parents.new_empty(len(x) - 1, 2)
    outside[0] = False
    for number in range(len(x) - 1):
        newest = torch.where(outside, distances, torch.inf).argmin()
        edges[number, 0], edges[number, 1] = parents[newest], newest
        outside[newest] = False
        is_nearer = matrix[newest] < distances
        parents[is_nearer] = newest
        torch.minimum(distances, matrix[newest], out=distances)
    return edges


def _symmetric_graph(distances: np.ndarray, indices: np.ndarray) -> csr_matrix:
    n_points, k = indices.shape
    rows, columns = np.repeat(np.arange(n_points), k), indices.ravel()
    # each pair once: a matrix sums entries given twice; and 0 must stay an edge, not "no edge"
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    _, first = np.unique(low * n_points + high, return_index=True)
    entries = (distances.ravel()[first], (low[first], high[first]))
    return csr_matrix(entries, shape=(n_points, n_points))
