"""Trees that join the points of a cloud at the least cost, and what falls apart without edges."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud
from saerepgeo.geometry.clouds.matrix import MatrixCloud
from saerepgeo.geometry.clouds.neighbors import components, nearest_neighbors
from saerepgeo.types import Float, Int

SLACK = 1e-12
"""Relative: a pair whose distance is the radius itself is joined, whatever the rounding."""


class Linkage(NamedTuple):
    """A tree by its N − 1 edges [edge, 2], lowest first; each joins groups of two of its points."""

    edges: np.ndarray
    heights: np.ndarray


def spanning_edges(
    cloud: Cloud, floor: Float[Tensor, "point"] | None = None
) -> Int[Tensor, "edge 2"]:
    """Return the edges of the minimum spanning tree of max(‖x_i − x_j‖, floor_i, floor_j).

    Tree end and new end of each, in the order of Prim's algorithm: O(N²) time, O(N) memory beside
    the cloud. Edges that differ by less than the rounding of scalar products may change places.
    """
    n_points = cloud.n_points
    floors = None if floor is None else floor.double().cpu().numpy()
    nearest = np.full(n_points, np.inf)
    parents = np.zeros(n_points, dtype=np.int64)
    is_outside = np.ones(n_points, dtype=bool)
    edges = np.empty((max(n_points - 1, 0), 2), dtype=np.int64)
    newest = 0
    for number in range(len(edges)):
        is_outside[newest], nearest[newest] = False, np.inf
        distances = cloud.distances_from(newest)
        if floors is not None:
            distances = np.maximum(np.maximum(distances, floors), floors[newest])
        is_nearer = (distances < nearest) & is_outside
        parents[is_nearer] = newest
        np.copyto(nearest, distances, where=is_nearer)
        newest = int(nearest.argmin())
        edges[number] = parents[newest], newest
    return torch.from_numpy(edges).to(cloud.device)


def single_linkage(cloud: Cloud, core: Float[Tensor, "point"] | None = None) -> Linkage:
    """Return the single linkage tree of d(i, j) = max(‖x_i − x_j‖, core_i, core_j).

    SciPy's where the cloud has all distances, else by `spanning_edges`; without `core`, that of the
    distances themselves. HDBSCAN reads its clusters off it. Fewer than two points have no edges.
    """
    if cloud.n_points < 2:
        return Linkage(np.empty((0, 2), dtype=np.int64), np.empty(0))
    floor = np.zeros(cloud.n_points) if core is None else core.double().cpu().numpy()
    if isinstance(cloud, MatrixCloud):
        return _of_matrix(cloud.distances.cpu().numpy(), floor)
    joined = spanning_edges(cloud, core)
    edges, lengths = joined.cpu().numpy(), cloud.lengths(joined).cpu().numpy()
    heights = np.maximum(lengths, floor[edges].max(1))
    order = heights.argsort(kind="stable")
    return Linkage(edges[order], heights[order])


def components_within(cloud: Cloud, radius: float) -> int:
    """Return the number of connected components of the graph of distances ≤ `radius`.

    The edges to the neighbors that the cloud has found come first; then only points outside the
    largest component are measured against all others: any other edge that could join two
    components has such an end. No points give 0.
    """
    radius *= 1 + SLACK
    if cloud.n_points < 2:
        return cloud.n_points
    found = nearest_neighbors(cloud, 1) if cloud.found is None else cloud.found
    is_edge = (found.distances <= radius).cpu().numpy()
    ends = [np.stack([is_edge.nonzero()[0], found.indices.cpu().numpy()[is_edge]])]
    labels = components(ends[0], cloud.n_points)[1]
    for i in np.flatnonzero(labels != np.bincount(labels).argmax()).tolist():
        near = np.flatnonzero(cloud.distances_from(i) <= radius * (1 + 1e-6))
        pairs = torch.from_numpy(np.stack([np.full(len(near), i), near], 1)).to(cloud.device)
        ends.append(pairs[cloud.lengths(pairs) <= radius].cpu().numpy().T)
    return int(components(np.concatenate(ends, axis=1), cloud.n_points)[0])


def _of_matrix(matrix: np.ndarray, floor: np.ndarray) -> Linkage:
    if floor.any():
        matrix = np.maximum(np.maximum(matrix, floor[:, None]), floor)
    merges = linkage(squareform(matrix, checks=False), "single")
    # any member stands for a group: heights along the tree's paths stay
    members = list(range(len(matrix)))
    edges = []
    for left, right in merges[:, :2].astype(np.int64).tolist():
        edges.append((members[left], members[right]))
        members.append(members[left])
    return Linkage(np.array(edges, dtype=np.int64), merges[:, 2])
