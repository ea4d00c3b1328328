"""Geometry of point clouds and representation matrices as pure functions.

Everything here maps tensors to a tensor, an `Estimate` or another small tuple; nothing keeps state,
reads files or knows about language models. The functions run on any device, work in float64 where
precision decides the answer, and need torch, numpy, scipy and scikit-learn only.

- `rank`: unfoldings, numerical, effective and stable rank, participation ratio.
- `spsd`: distances between positive semidefinite matrices.
- `sketch`: Frequent Directions, the spectrum of a stream in constant memory.
- `dimension`: intrinsic dimension by nearest neighbors (TwoNN, GRIDE).
- `graphs`: minimum spanning tree, Betti-0, geodesic distances.
- `clusters`: HDBSCAN and the matching of two clusterings.
- `alignment`, `separation`, `transport`: shapes, separability and couplings of centroids.
- `nulls`, `dictionaries`: what the same statistics give by chance, and under random weights.
"""

from saerepgeo.geometry.alignment import debiased_cka, procrustes_disparity
from saerepgeo.geometry.clouds.neighbors import Neighbors, nearest_neighbors
from saerepgeo.geometry.clouds.pairwise import rotated
from saerepgeo.geometry.clusters import Matching, cluster, match_clusters
from saerepgeo.geometry.dictionaries import random_dictionary
from saerepgeo.geometry.dimension import (
    ScaleCurve,
    dimension_from_ratios,
    gride,
    two_nn,
    two_nn_within,
)
from saerepgeo.geometry.graphs import (
    SpanningTree,
    average_geodesic_distance,
    betti_0,
    connection_radius,
    minimum_spanning_tree,
    mst_weight,
    neighbor_graph_components,
    persistence_0,
)
from saerepgeo.geometry.nulls import PermutationTest, permutation_test, subsample_interval
from saerepgeo.geometry.rank import (
    NumericalRankResult,
    effective_rank,
    multilinear_rank,
    numerical_rank,
    participation_ratio,
    singular_values,
    stable_rank,
    unfold,
)
from saerepgeo.geometry.separation import (
    ClassMoments,
    average_pairwise_distance,
    centroids,
    class_moments,
    fisher_ratio,
    pairwise_distances,
    relative_aedp,
    scale_free_mstw,
    within_scatter,
)
from saerepgeo.geometry.silhouettes import silhouette
from saerepgeo.geometry.sketch import (
    Sketch,
    empty_sketch,
    extend_sketch,
    merge_sketches,
    sketch_singular_values,
)
from saerepgeo.geometry.spsd import bures_wasserstein, spsd_distance
from saerepgeo.geometry.transport import Coupling, gromov_wasserstein
from saerepgeo.geometry.unfoldings import MODES, ModeSpectra, mode_spectra, rank_by_rule

__all__ = [
    "MODES",
    "ClassMoments",
    "Coupling",
    "Matching",
    "ModeSpectra",
    "Neighbors",
    "NumericalRankResult",
    "PermutationTest",
    "ScaleCurve",
    "Sketch",
    "SpanningTree",
    "average_geodesic_distance",
    "average_pairwise_distance",
    "betti_0",
    "bures_wasserstein",
    "centroids",
    "class_moments",
    "cluster",
    "connection_radius",
    "debiased_cka",
    "dimension_from_ratios",
    "effective_rank",
    "empty_sketch",
    "extend_sketch",
    "fisher_ratio",
    "gride",
    "gromov_wasserstein",
    "match_clusters",
    "merge_sketches",
    "minimum_spanning_tree",
    "mode_spectra",
    "mst_weight",
    "multilinear_rank",
    "nearest_neighbors",
    "neighbor_graph_components",
    "numerical_rank",
    "pairwise_distances",
    "participation_ratio",
    "permutation_test",
    "persistence_0",
    "procrustes_disparity",
    "random_dictionary",
    "rank_by_rule",
    "relative_aedp",
    "rotated",
    "scale_free_mstw",
    "silhouette",
    "singular_values",
    "sketch_singular_values",
    "spsd_distance",
    "stable_rank",
    "subsample_interval",
    "two_nn",
    "two_nn_within",
    "unfold",
    "within_scatter",
]
