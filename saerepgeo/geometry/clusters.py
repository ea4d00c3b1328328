"""Clusters found without their number, and the matching of two clusterings of the same points."""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Points
from saerepgeo.geometry.clouds.conversion import as_cloud, as_float64, check_labels_of
from saerepgeo.geometry.clouds.entries import centered, unit_of
from saerepgeo.geometry.clouds.linkage import single_linkage
from saerepgeo.geometry.clouds.matrix import MATRIX_POINTS
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.geometry.clouds.pairwise import gram_distances
from saerepgeo.types import Estimate, Int

TREE_DIM = 10
"""Up to this dimension scikit-learn's trees save distances; beyond, the matrix is far faster."""


class Matching(NamedTuple):
    """One-to-one pairs of clusters of two clusterings, which share `overlaps` points each."""

    pairs: Int[Tensor, "pair 2"]
    """Label in the first and in the second clustering, by the first."""
    overlaps: Int[Tensor, "pair"]
    unmatched_mass: Estimate
    """Share of the points in any cluster that no pair holds; `n_dropped` is noise in both."""


def cluster(
    points: Points, min_cluster_size: int = 5, *, min_samples: int | None = None
) -> Int[Tensor, "point"]:
    """Return the HDBSCAN cluster 0, 1, … of each point, −1 for noise.

    Clusters are the most persistent branches, at least `min_cluster_size` points strong, of the
    single linkage tree in mutual reachability distance max(core_i, core_j, ‖x_i − x_j‖), where core
    is the distance to neighbor `min_samples` (None: `min_cluster_size`), the point included. Of
    latents, sparse tensors, clouds and many wide points scikit-learn reads the clusters off
    `single_linkage`: the same but for their numbers, and for points that several equal heights
    join. All −1 for fewer than `min_cluster_size` (or `min_samples`) points and for equal points.
    Raises ValueError for sizes below 2 and 1, and for integer or non-finite points. Source:
    Campello, Moulavi & Sander 2013, *Density-Based Clustering Based on Hierarchical Density
    Estimates*; scikit-learn's implementation.

    >>> blobs = torch.cat([torch.linspace(0, 1, 8), torch.linspace(9, 10, 8)])[:, None]
    >>> cluster(blobs, 5).unique().tolist()
    [0, 1]
    """
    if min_cluster_size < 2 or (min_samples is not None and min_samples < 1):
        sizes = f"{min_cluster_size} and {min_samples}"
        raise ValueError(f"`min_cluster_size` must be ≥ 2 and `min_samples` ≥ 1, got {sizes}")
    least = max(min_cluster_size, min_samples or 0)
    if isinstance(points, Tensor) and points.layout == torch.strided:
        x = as_float64(points).detach()
        if len(x) < least or bool((x == x[:1]).all()):
            return torch.full((len(x),), -1, device=x.device)
        is_wide = x.shape[1] > TREE_DIM
        if not is_wide or len(x) <= MATRIX_POINTS:
            # scikit-learn does it all: where equal heights join points, its own order decides
            x, _ = centered(x)
            given = (gram_distances(x) if is_wide else x).cpu().numpy()
            metric = "precomputed" if is_wide else "euclidean"
            return _hdbscan(given, min_cluster_size, min_samples, metric).to(x.device)
    cloud = as_cloud(points)
    if cloud.n_points < least or cloud.size() == 0:
        return torch.full((cloud.n_points,), -1, device=cloud.device)
    # scikit-learn counts the point itself among its neighbors
    n_others = (min_samples or min_cluster_size) - 1
    core = nearest_neighbors(cloud, n_others).distances[:, -1] if n_others else None
    tree = single_linkage(cloud, core)
    heights = tree.heights / unit_of(torch.from_numpy(tree.heights))
    heights = np.maximum(heights, 1e-300)  # a sparse matrix cannot hold a height of 0
    graph = csr_matrix((heights, tree.edges.T), shape=2 * (cloud.n_points,))
    # at 1 the core distance of a point is its shortest edge, which changes no edge
    return _hdbscan(graph + graph.T, min_cluster_size, 1, "precomputed").to(cloud.device)


def match_clusters(x: Int[Tensor, "point"], y: Int[Tensor, "point"]) -> Matching:
    """Return the one-to-one matching of clusters that share the most points (Hungarian).

    Maximizes Σ_(i,j) #{p: x_p = i, y_p = j} over matchings; pairs that share no point are left out,
    negative labels are noise. The unmatched mass is 1 − Σ overlaps / #{p: x_p ≥ 0 or y_p ≥ 0};
    without any cluster it is undefined. Raises ValueError where the lengths differ, and for labels
    that are not integers. Source: Kuhn 1955, *The Hungarian Method for the Assignment Problem*.

    >>> match_clusters(torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 3, 7])).pairs.tolist()
    [[0, 7], [1, 3]]
    """
    if x.shape != y.shape or x.ndim != 1:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"`x` and `y` must label the same points, got shapes {shapes}")
    check_labels_of(x, x, "x")
    check_labels_of(x, y, "y")
    is_shared, is_any = (x >= 0) & (y >= 0), (x >= 0) | (y >= 0)
    names_x, rows = x[is_shared].unique(return_inverse=True)
    names_y, columns = y[is_shared].unique(return_inverse=True)
    shape = (len(names_x), len(names_y))
    table = torch.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).view(shape)
    assigned = linear_sum_assignment(table.cpu().numpy(), maximize=True)
    i, j = (torch.from_numpy(part).to(x.device) for part in assigned)
    overlaps = table[i, j]
    i, j, overlaps = i[overlaps > 0], j[overlaps > 0], overlaps[overlaps > 0]
    n_points = int(is_any.sum())
    mass = Estimate.undefined("no point belongs to a cluster")
    if n_points:
        mass = Estimate(1 - overlaps.sum().double() / n_points, n_points, 0)
    mass = mass._replace(n_dropped=len(x) - n_points)
    return Matching(torch.stack([names_x[i], names_y[j]], 1), overlaps, mass)


def _hdbscan(given: Any, min_cluster_size: int, min_samples: int | None, metric: str) -> Tensor:
    from sklearn.cluster import HDBSCAN  # half a second, which training need not wait for

    model = HDBSCAN(min_cluster_size, min_samples=min_samples, metric=metric, copy=True)
    return torch.from_numpy(model.fit_predict(given)).long()
