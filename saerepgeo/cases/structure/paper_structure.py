"""Case 2 as the paper computes it: UMAP, HDBSCAN on it, TwoNN, spanning tree, Procrustes.

Step for step, with what is questionable in it: the space of all figures is a UMAP embedding, each
space on its own; BOS and padding are points like any other; latents are standardized, so that a
latent active once weighs as much as one active everywhere; the clusters of the two spaces are
paired by label numbers, which mean nothing. The `sound` protocol asks the same without.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saerepgeo.geometry.alignment import procrustes_disparity
from saerepgeo.geometry.clouds.conversion import as_cloud
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.geometry.clusters import cluster
from saerepgeo.geometry.dimension import dimension_from_ratios
from saerepgeo.geometry.graphs import (
    average_geodesic_distance,
    betti_0,
    connection_radius,
    mst_weight,
)
from saerepgeo.types import Float, Int

__all__ = ["PaperSpace", "label_paired_procrustes", "paper_embedding", "paper_space"]

UMAP_SETTINGS: dict[str, Any] = {
    "n_components": 50,
    "n_neighbors": 15,
    "min_dist": 0.1,
    "metric": "euclidean",
}
UMAP_SEED = 42
SMALL = 4096
"""Points from which on UMAP looks for neighbors by an approximate search of its own."""
MIN_CLUSTER_SIZE = 10
DISCARD = 0.1
"""Share of the largest ratios that TwoNN sets aside."""


class PaperSpace(NamedTuple):
    """The paper's figures of one space."""

    embedding: Float[Tensor, "point component"]
    labels: Int[Tensor, "point"]
    """HDBSCAN's, −1 for noise."""
    n_clusters: int
    average_dimension: float
    """Mean TwoNN dimension of the clusters, in the embedding; NaN without clusters."""
    betti_0: int
    mst_weight: float
    """Of the cluster means; NaN for fewer than two."""
    agd: float


def paper_space(points: Float[Tensor, "point dim"], seed: int = UMAP_SEED) -> PaperSpace:
    """Return the figures of all positions of a concept, padding included, in one space.

    Clusters are HDBSCAN's (`min_cluster_size` 10) on `paper_embedding`. The authors' code has no
    Betti-0 and no AGD, though the paper names them; they are taken on the same embedding, with the
    radius of `connection_radius` and the 15 neighbors of the embedding.
    """
    embedding = paper_embedding(points, seed)
    labels = cluster(embedding, MIN_CLUSTER_SIZE)
    n_clusters = int(labels.max()) + 1
    members = [embedding[labels == label] for label in range(n_clusters)]
    dimensions = [d for d in map(_two_nn, members) if d == d]
    means = [m.mean(0) for m in members]
    cloud = as_cloud(embedding)
    nearest_neighbors(cloud, min(UMAP_SETTINGS["n_neighbors"], len(embedding) - 1))
    radius = connection_radius(cloud, MIN_CLUSTER_SIZE)
    return PaperSpace(
        embedding,
        labels,
        n_clusters,
        float(np.mean(dimensions)) if dimensions else float("nan"),
        int(float(betti_0(embedding, radius))),
        float(mst_weight(torch.stack(means))) if n_clusters >= 2 else float("nan"),
        float(average_geodesic_distance(cloud, UMAP_SETTINGS["n_neighbors"])),
    )


def paper_embedding(
    points: Float[Tensor, "point dim"], seed: int = UMAP_SEED
) -> Float[Tensor, "point component"]:
    """Return UMAP's 50 coordinates of standardized points of unit norm.

    Every feature to mean 0 and standard deviation 1 over the points (a constant one to 0), every
    row to norm 1 (a zero row stays), then UMAP with 15 neighbors and `min_dist` 0.1. The same
    `seed` gives the same coordinates on the same machine and version of UMAP.

    Raises:
        ValueError: umap-learn is not installed, or there are too few points for 50 components.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from umap import UMAP

            from saerepgeo.cases.structure.umap_neighbors import (
                keep_compiled,
                neighbors_of_umap,
                seeded_eigenvectors,
            )
    except ImportError as error:
        raise ValueError(
            "the paper protocol of case 2 needs umap-learn; run `pip install saerepgeo[umap]`, "
            "or set `protocols: [sound]`"
        ) from error
    from sklearn.preprocessing import StandardScaler, normalize

    n_least = UMAP_SETTINGS["n_components"] + 2  # of the spectral start
    if len(points) < n_least:
        raise ValueError(f"the paper protocol needs {n_least} points or more, got {len(points)}")
    rows = normalize(StandardScaler().fit_transform(points.detach().cpu().numpy()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's and UMAP's own, of no consequence here
        keep_compiled()
        known = {}
        if len(rows) < SMALL:
            known["precomputed_knn"] = neighbors_of_umap(rows, UMAP_SETTINGS["n_neighbors"])
        reducer = UMAP(**UMAP_SETTINGS, **known, random_state=seed, n_jobs=1)
        with seeded_eigenvectors(seed):
            embedding = reducer.fit_transform(rows)
    return torch.from_numpy(np.asarray(embedding, dtype=np.float64))


def label_paired_procrustes(resid: PaperSpace, latents: PaperSpace) -> float:
    """Return the Procrustes disparity of cluster means that bear the same label number.

    The number a cluster gets has no meaning, so this is the disparity of an arbitrary pairing; it
    is what the paper reports. NaN for fewer than two common labels.
    """
    common = range(min(resid.n_clusters, latents.n_clusters))
    if len(common) < 2:
        return float("nan")
    a, b = (
        torch.stack([s.embedding[s.labels == label].mean(0) for label in common])
        for s in (resid, latents)
    )
    return float(procrustes_disparity(a, b))


def _two_nn(members: Tensor) -> float:
    """Return TwoNN without merging duplicates and without a least number of points."""
    if len(members) < 3:
        return float("nan")
    distances = nearest_neighbors(members, 2).distances
    apart = distances[:, 0] > 0
    ratios = distances[apart, 1] / distances[apart, 0]
    return float(dimension_from_ratios(ratios, DISCARD)) if len(ratios) > 2 else float("nan")
