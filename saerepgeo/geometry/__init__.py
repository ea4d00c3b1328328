"""Geometry of point clouds and representation matrices as pure functions.

Everything here maps tensors to a tensor, an `Estimate` or another small tuple; nothing keeps state,
reads files or knows about language models. The functions run on any device, work in float64 where
precision decides the answer, and need torch, numpy, scipy and scikit-learn only.

- `rank`: unfoldings, numerical, effective and stable rank, participation ratio.
- `spsd`: distances between positive semidefinite matrices.
- `sketch`: Frequent Directions, the spectrum of a stream in constant memory.
- `dimension`: intrinsic dimension by nearest neighbours (TwoNN, GRIDE).
- `graphs`: minimum spanning tree, Betti-0, geodesic distances.
- `clusters`: HDBSCAN and the matching of two clusterings.
- `alignment`, `separation`, `transport`: shapes, separability and couplings of centroids.
- `nulls`, `dictionaries`: what the same statistics give by chance, and under random weights.
"""

from saerepgeo.geometry.alignment import debiased_cka, procrustes_disparity
from saerepgeo.geometry.dictionaries import random_dictionary
from saerepgeo.geometry.nulls import PermutationTest, permutation_test, subsample_interval
from saerepgeo.geometry.separation import (
    ClassMoments,
    as_loss,
    average_pairwise_distance,
    centroids,
    class_moments,
    fisher_ratio,
    pairwise_distances,
    relative_aedp,
    within_scatter,
)
from saerepgeo.geometry.silhouette import silhouette
from saerepgeo.geometry.transport import Coupling, gromov_wasserstein

__all__ = [
    "ClassMoments",
    "Coupling",
    "PermutationTest",
    "as_loss",
    "average_pairwise_distance",
    "centroids",
    "class_moments",
    "debiased_cka",
    "fisher_ratio",
    "gromov_wasserstein",
    "pairwise_distances",
    "permutation_test",
    "procrustes_disparity",
    "random_dictionary",
    "relative_aedp",
    "silhouette",
    "subsample_interval",
    "within_scatter",
]
