"""Exact nearest neighbors, fast for sparse latents and safe far from the origin.

A cloud nominates candidates fast and inexactly and measures them exactly. A row is accepted only
where an error bound proves that no point left out can be nearer; the others are searched again in
higher precision, and at last one by one.
"""

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud, Neighbors, Points, RowCloud
from saerepgeo.geometry.clouds.conversion import as_cloud
from saerepgeo.geometry.clouds.dense import DenseCloud
from saerepgeo.geometry.clouds.matrix import MatrixCloud
from saerepgeo.types import Int

__all__ = ["Neighbors", "distinct_points", "nearest_neighbors"]

SPARE = 6
"""Candidates beyond the k wanted: enough that the error bound holds at once for most rows."""
TREE_DIM = 10
"""Up to this dimension a k-d tree visits few points; beyond, nearly all of them."""


def nearest_neighbors(points: Points, n_neighbors: int) -> Neighbors:
    """Return the `n_neighbors` nearest other points of every point, exact to float64.

    A duplicate of a point is a neighbor at distance 0. Among equally near points any may come
    first. Takes a dense tensor, a torch sparse tensor, `SparseLatents` or a `Cloud`, which keeps
    what was found: asking it for as many neighbors again, or for fewer, is free. Not
    differentiable.

    Raises ValueError for `n_neighbors` outside 1…N−1, and for integer or non-finite input.

    >>> nearest_neighbors(torch.tensor([[0.0], [1.0], [3.0]]), 1).distances.flatten()
    tensor([1., 1., 2.], dtype=torch.float64)
    """
    cloud = as_cloud(points)
    n_points = cloud.n_points
    if not 1 <= n_neighbors < n_points:
        raise ValueError(
            f"`n_neighbors` must lie in 1…{n_points - 1} for {n_points} points, got {n_neighbors}"
        )
    if cloud.found is None or cloud.found.distances.shape[1] < n_neighbors:
        cloud.found = _search(cloud, n_neighbors)
    return Neighbors(*(part[:, :n_neighbors] for part in cloud.found))


def _search(cloud: Cloud, k: int) -> Neighbors:
    if isinstance(cloud, MatrixCloud):
        return cloud.nearest(k)
    assert isinstance(cloud, RowCloud)
    n_points, is_on_cpu = cloud.n_points, cloud.device.type == "cpu"
    if isinstance(cloud, DenseCloud) and is_on_cpu and 1 <= cloud.x.shape[1] <= TREE_DIM:
        return _search_tree(cloud, k)
    distances = torch.empty(n_points, k, dtype=torch.float64, device=cloud.device)
    indices = torch.empty(n_points, k, dtype=torch.long, device=cloud.device)
    pending = torch.arange(n_points, device=cloud.device)
    for precision in (torch.float32, torch.float64, None):
        if not len(pending):
            break
        if precision is None:
            found, is_proven = _search_exhaustively(cloud, pending, k)
        else:
            found, is_proven = _search_candidates(cloud, pending, k, precision)
        distances[pending[is_proven]] = found.distances[is_proven]
        indices[pending[is_proven]] = found.indices[is_proven]
        pending = pending[~is_proven]
    return Neighbors(distances * cloud.scale, indices)


def distinct_points(
    cloud: Cloud, k: int, tolerance: float
) -> tuple[Int[Tensor, "kept"], Neighbors | None]:
    """Merge duplicates; return the points kept and the `k` nearest neighbors among them.

    Points nearer than `tolerance` · √(mean square norm of the cloud) count as one, and chains of
    such points too; of each group the first point stays. No neighbors where k or fewer points
    are left.
    """
    limit = tolerance * cloud.size()
    kept = torch.arange(cloud.n_points, device=cloud.device)
    while len(kept) > k:
        found = nearest_neighbors(cloud, k)
        is_near = found.distances <= limit
        if not bool(is_near[:, 0].any()):
            return kept, found
        first = _first_of_group(found.indices, is_near)
        kept, cloud = kept[first], cloud.take(first)
    return kept, None


def _first_of_group(indices: Tensor, is_near: Tensor) -> Tensor:
    n_points = len(indices)
    rows, columns = is_near.nonzero()[:, 0], indices[is_near]
    pairs = (rows.cpu().numpy(), columns.cpu().numpy())
    graph = coo_matrix((np.ones(len(rows)), pairs), shape=(n_points, n_points))
    groups = connected_components(graph, directed=False)[1]
    return torch.from_numpy(np.sort(np.unique(groups, return_index=True)[1])).to(indices.device)


def _search_tree(cloud: DenseCloud, k: int) -> Neighbors:
    x = cloud.x.numpy()
    distances, indices = cKDTree(x).query(x, k + 1)
    # the point itself is among the answers, unless k + 1 duplicates crowd it out
    is_self = indices == np.arange(len(x))[:, None]
    is_self[~is_self.any(1), -1] = True
    shape = (len(x), k)
    found = distances[~is_self].reshape(shape), indices[~is_self].reshape(shape)
    return Neighbors(torch.from_numpy(found[0]) * cloud.scale, torch.from_numpy(found[1]))


def _search_candidates(
    cloud: RowCloud, rows: Tensor, k: int, precision: torch.dtype
) -> tuple[Neighbors, Tensor]:
    count = min(k + SPARE, cloud.n_points - 1)
    candidates, bounds = cloud.nominate(rows, count, precision)
    candidates = candidates.sort(dim=1).values
    squared = cloud.squared_distances(rows, candidates)
    nearest = squared.topk(k, largest=False)
    found = Neighbors(nearest.values.sqrt(), candidates.gather(1, nearest.indices))
    return found, (nearest.values[:, -1] <= bounds) | (count == cloud.n_points - 1)


def _search_exhaustively(cloud: RowCloud, rows: Tensor, k: int) -> tuple[Neighbors, Tensor]:
    """Measure every point; only for rows whose neighbors differ by rounding errors."""
    found = []
    everything = torch.arange(cloud.n_points, device=cloud.device)
    for block in rows.split(256):
        x = cloud.dense(block)
        nearest = Neighbors(x.new_full((len(x), k), torch.inf), block[:, None].expand(-1, k))
        for others in everything.split(1024):
            distances = torch.cdist(
                x, cloud.dense(others), compute_mode="donot_use_mm_for_euclid_dist"
            )
            distances[block[:, None] == others] = torch.inf
            nearest = _nearer(nearest, Neighbors(distances, others.expand(len(x), -1)))
        found.append(nearest)
    joined = Neighbors(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    return joined, torch.ones(len(rows), dtype=torch.bool, device=rows.device)


def _nearer(x: Neighbors, y: Neighbors) -> Neighbors:
    """Return as many of both as `x` holds."""
    best = torch.cat([x.distances, y.distances], 1).topk(x.distances.shape[1], largest=False)
    return Neighbors(best.values, torch.cat([x.indices, y.indices], 1).gather(1, best.indices))
