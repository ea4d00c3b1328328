"""The geometry functions as torchmetrics: accumulate over batches and processes, then compute once.

Each class holds sufficient statistics where they exist, else a bounded sample of points, and calls
`saerepgeo.geometry` for the figure. Whatever the batches and however many the processes, the same
points give the same result. `wrappers` puts intervals and nulls around them.
"""

from saerepgeo.metrics.alignment import LinearCKA, ProcrustesDisparity, UnmatchedMass
from saerepgeo.metrics.cloud_metric import CloudFigure, CloudMetric, PairMetric
from saerepgeo.metrics.clusters import ClusterCount, NoiseShare
from saerepgeo.metrics.dimension import GRIDE, TwoNN, TwoNNPerCluster, TwoNNWithin
from saerepgeo.metrics.estimates import EstimateMetric
from saerepgeo.metrics.graphs import AverageGeodesicDistance, Betti0, MinimumSpanningTreeWeight
from saerepgeo.metrics.rank import EffectiveRank, NumericalRank, ParticipationRatio, StableRank
from saerepgeo.metrics.reconstruction import (
    CosineSimilarity,
    FractionVarianceUnexplained,
    MeanSquaredError,
    RelativeReconstructionBias,
)
from saerepgeo.metrics.recovered import CrossEntropyRecovered, KLRecovered
from saerepgeo.metrics.separation import (
    AverageEuclideanDistance,
    ClassMomentsMetric,
    FisherRatio,
    RelativeAEDP,
    ScaleFreeMSTW,
    Silhouette,
)
from saerepgeo.metrics.sparsity import L0, DeadFraction
from saerepgeo.metrics.tensor_ranks import TensorRanks
from saerepgeo.metrics.wrappers import (
    Evidence,
    GaussianNull,
    NullTest,
    PermutedItems,
    RandomDictionaries,
    RandomPairing,
    SubsampleInterval,
)

__all__ = [
    "GRIDE",
    "L0",
    "AverageEuclideanDistance",
    "AverageGeodesicDistance",
    "Betti0",
    "ClassMomentsMetric",
    "CloudFigure",
    "CloudMetric",
    "ClusterCount",
    "CosineSimilarity",
    "CrossEntropyRecovered",
    "DeadFraction",
    "EffectiveRank",
    "EstimateMetric",
    "Evidence",
    "FisherRatio",
    "FractionVarianceUnexplained",
    "GaussianNull",
    "KLRecovered",
    "LinearCKA",
    "MeanSquaredError",
    "MinimumSpanningTreeWeight",
    "NoiseShare",
    "NullTest",
    "NumericalRank",
    "PairMetric",
    "ParticipationRatio",
    "PermutedItems",
    "ProcrustesDisparity",
    "RandomDictionaries",
    "RandomPairing",
    "RelativeAEDP",
    "RelativeReconstructionBias",
    "ScaleFreeMSTW",
    "Silhouette",
    "StableRank",
    "SubsampleInterval",
    "TensorRanks",
    "TwoNN",
    "TwoNNPerCluster",
    "TwoNNWithin",
    "UnmatchedMass",
]
