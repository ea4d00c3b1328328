"""Geometry of point clouds and representation matrices as pure functions, one file a formula.

Everything here maps points to a tensor, an `Estimate` or another small tuple; nothing keeps state,
reads files or knows about language models. Points come as dense or torch sparse tensors, as
`SparseLatents` or as a `Cloud`; a label of −1 leaves a point out. The functions run on any device,
work in float64 where precision decides the answer, and need torch, numpy, scipy and scikit-learn
only. `clouds` holds points by coordinates, by few entries or by distances.
"""

from saerepgeo.geometry.alignment import debiased_cka as debiased_cka
from saerepgeo.geometry.alignment import debiased_ckas as debiased_ckas
from saerepgeo.geometry.alignment import procrustes_disparity as procrustes_disparity
from saerepgeo.geometry.clouds.cloud import Cloud as Cloud
from saerepgeo.geometry.clouds.cloud import Neighbors as Neighbors
from saerepgeo.geometry.clouds.cloud import Points as Points
from saerepgeo.geometry.clouds.conversion import as_cloud as as_cloud
from saerepgeo.geometry.clouds.conversion import as_float64 as as_float64
from saerepgeo.geometry.clouds.conversion import count_points as count_points
from saerepgeo.geometry.clouds.conversion import take_points as take_points
from saerepgeo.geometry.clouds.dense import DenseCloud as DenseCloud
from saerepgeo.geometry.clouds.entries import check_finite as check_finite
from saerepgeo.geometry.clouds.labeled import LabeledCloud as LabeledCloud
from saerepgeo.geometry.clouds.linkage import single_linkage as single_linkage
from saerepgeo.geometry.clouds.matrix import MatrixCloud as MatrixCloud
from saerepgeo.geometry.clouds.neighbors import distinct_points as distinct_points
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors as nearest_neighbors
from saerepgeo.geometry.clouds.sparse import SparseCloud as SparseCloud
from saerepgeo.geometry.clusters import Matching as Matching
from saerepgeo.geometry.clusters import cluster as cluster
from saerepgeo.geometry.clusters import match_clusters as match_clusters
from saerepgeo.geometry.debiased_separation import debiased_aedp as debiased_aedp
from saerepgeo.geometry.debiased_separation import debiased_fisher_ratio as debiased_fisher_ratio
from saerepgeo.geometry.debiased_separation import debiased_relative_aedp as debiased_relative_aedp
from saerepgeo.geometry.debiased_separation import (
    debiased_squared_distances as debiased_squared_distances,
)
from saerepgeo.geometry.dictionaries import mean_nearest_cosine as mean_nearest_cosine
from saerepgeo.geometry.dictionaries import random_dictionary as random_dictionary
from saerepgeo.geometry.dimension import ScaleCurve as ScaleCurve
from saerepgeo.geometry.dimension import dimension_from_ratios as dimension_from_ratios
from saerepgeo.geometry.dimension import gride as gride
from saerepgeo.geometry.dimension import two_nn as two_nn
from saerepgeo.geometry.dimension import two_nn_within as two_nn_within
from saerepgeo.geometry.graphs import SpanningTree as SpanningTree
from saerepgeo.geometry.graphs import average_geodesic_distance as average_geodesic_distance
from saerepgeo.geometry.graphs import betti_0 as betti_0
from saerepgeo.geometry.graphs import connection_radius as connection_radius
from saerepgeo.geometry.graphs import minimum_spanning_tree as minimum_spanning_tree
from saerepgeo.geometry.graphs import mst_weight as mst_weight
from saerepgeo.geometry.nulls import PermutationTest as PermutationTest
from saerepgeo.geometry.nulls import interval_of_draws as interval_of_draws
from saerepgeo.geometry.nulls import null_test as null_test
from saerepgeo.geometry.nulls import permutation_test as permutation_test
from saerepgeo.geometry.nulls import subsample_interval as subsample_interval
from saerepgeo.geometry.rank import NumericalRankResult as NumericalRankResult
from saerepgeo.geometry.rank import effective_rank as effective_rank
from saerepgeo.geometry.rank import numerical_rank as numerical_rank
from saerepgeo.geometry.rank import participation_ratio as participation_ratio
from saerepgeo.geometry.rank import singular_values as singular_values
from saerepgeo.geometry.rank import stable_rank as stable_rank
from saerepgeo.geometry.separation import ClassMoments as ClassMoments
from saerepgeo.geometry.separation import average_pairwise_distance as average_pairwise_distance
from saerepgeo.geometry.separation import centroids as centroids
from saerepgeo.geometry.separation import class_moments as class_moments
from saerepgeo.geometry.separation import fisher_ratio as fisher_ratio
from saerepgeo.geometry.separation import pairwise_distances as pairwise_distances
from saerepgeo.geometry.separation import relative_aedp as relative_aedp
from saerepgeo.geometry.separation import scale_free_mstw as scale_free_mstw
from saerepgeo.geometry.separation import within_scatter as within_scatter
from saerepgeo.geometry.sequential_nulls import sequential_test as sequential_test
from saerepgeo.geometry.silhouettes import silhouette as silhouette
from saerepgeo.geometry.sketch import Sketch as Sketch
from saerepgeo.geometry.sketch import empty_sketch as empty_sketch
from saerepgeo.geometry.sketch import extend_sketch as extend_sketch
from saerepgeo.geometry.sketch import merge_sketches as merge_sketches
from saerepgeo.geometry.transport import Coupling as Coupling
from saerepgeo.geometry.transport import gromov_wasserstein as gromov_wasserstein
from saerepgeo.geometry.unfoldings import MODES as MODES
from saerepgeo.geometry.unfoldings import ModeSpectra as ModeSpectra
from saerepgeo.geometry.unfoldings import mode_spectra as mode_spectra
from saerepgeo.geometry.unfoldings import rank_by_rule as rank_by_rule
from saerepgeo.lazy import export_names

export_names(__name__)
