"""Exact nearest neighbors, fast for sparse latents and safe far from the origin.

A cloud nominates candidates inexactly and measures them exactly. Rows for which no error bound
proves the points left out farther are searched again in higher precision, at last exhaustively.
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

SPARE = 6
"""Candidates beyond the k wanted: enough that the error bound holds at once for most rows."""
TREE_DIM = 10
"""Up to this dimension a k-d tree visits few points; beyond, nearly all of them."""


def nearest_neighbors(points: Points, n_neighbors: int) -> Neighbors:
    """Return the `n_neighbors` nearest other points of every point, exact to float64.

    A duplicate of a point is a neighbor at distance 0. Among equally near points any may come
    first. A `Cloud` keeps what was found: asking it for as many again, or for fewer, is free. Not
    differentiable. Raises ValueError for `n_neighbors` outside 1…N−1, and for integer or non-finite
    input.

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


def distinct_points(
    cloud: Cloud, n_neighbors: int, tolerance: float
) -> tuple[Int[Tensor, "kept"], Neighbors | None]:
    """Merge duplicates; return the points kept and the nearest neighbors among them.

    Points nearer than `tolerance` · `cloud.size()`, and chains of them, count as one: the first.
    No neighbors where `n_neighbors` or fewer points are left.
    """
    limit = tolerance * cloud.size()
    kept = torch.arange(cloud.n_points, device=cloud.device)
    while len(kept) > n_neighbors:
        found = nearest_neighbors(cloud, n_neighbors)
        is_near = found.distances <= limit
        if not bool(is_near[:, 0].any()):
            return kept, found
        pairs = torch.stack([is_near.nonzero()[:, 0], found.indices[is_near]])
        groups = components(pairs.cpu().numpy(), len(kept))[1]
        first = np.sort(np.unique(groups, return_index=True)[1])
        index = torch.from_numpy(first).to(cloud.device)
        kept, cloud = kept[index], cloud.take(index)
    return kept, None


def components(ends: np.ndarray, n_points: int) -> tuple[int, np.ndarray]:
    """Return how many components edges [2, edge] leave, and which one each point is in."""
    graph = coo_matrix((np.ones(ends.shape[1]), tuple(ends)), shape=(n_points, n_points))
    return connected_components(graph, directed=False)


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
        if precision is None:
            found = _search_exhaustively(cloud, pending, k)
            is_proven = torch.ones_like(pending, dtype=torch.bool)
        else:
            found, is_proven = _search_candidates(cloud, pending, k, precision)
        distances[pending[is_proven]] = found.distances[is_proven]
        indices[pending[is_proven]] = found.indices[is_proven]
        pending = pending[~is_proven]
        if not len(pending):
            break
    return Neighbors(distances * cloud.scale, indices)


def _search_tree(cloud: DenseCloud, k: int) -> Neighbors:
    x = cloud.x.numpy()
    distances, indices = cKDTree(x).query(x, k + 1)
    # the point itself is among the answers, unless k + 1 duplicates crowd it out
    is_self = indices == np.arange(len(x))[:, None]
    is_self[~is_self.any(1), -1] = True
    found = (torch.from_numpy(part[~is_self].reshape(-1, k)) for part in (distances, indices))
    return Neighbors(next(found) * cloud.scale, next(found))


def _search_candidates(
    cloud: RowCloud, rows: Tensor, k: int, precision: torch.dtype
) -> tuple[Neighbors, Tensor]:
    count = min(k + SPARE, cloud.n_points - 1)
    candidates, bounds = cloud.nominate(rows, count, precision)
    candidates = candidates.sort(dim=1).values
    nearest = cloud.squared_distances(rows, candidates).topk(k, largest=False)
    found = Neighbors(nearest.values.sqrt(), candidates.gather(1, nearest.indices))
    return found, (nearest.values[:, -1] <= bounds) | (count == cloud.n_points - 1)


def _search_exhaustively(cloud: RowCloud, rows: Tensor, k: int) -> Neighbors:
    """Measure every point; only for rows whose neighbors differ by rounding errors."""
    found = []
    everything = torch.arange(cloud.n_points, device=cloud.device)
    for block in rows.split(256):
        x = cloud.dense(block)
        distances, indices = x.new_full((len(x), k), torch.inf), block[:, None].expand(-1, k)
        for others in everything.split(1024):
            new = torch.cdist(x, cloud.dense(others), compute_mode="donot_use_mm_for_euclid_dist")
            new[block[:, None] == others] = torch.inf
            distances, order = torch.cat([distances, new], 1).topk(k, largest=False)
            indices = torch.cat([indices, others.expand(len(x), -1)], 1).gather(1, order)
        found.append((distances, indices))
    return Neighbors(*(torch.cat(parts) for parts in zip(*found, strict=True)))
