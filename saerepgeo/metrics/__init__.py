"""The geometry functions as torchmetrics: accumulate over batches and processes, then compute once.

Each class holds sufficient statistics where they exist, else a bounded sample of points, and calls
`saerepgeo.geometry` for the figure. Whatever the batches and however many the processes, the same
points give the same result.
"""

from saerepgeo.metrics.alignment import LinearCKA, ProcrustesDisparity
from saerepgeo.metrics.clusters import ClusterCount
from saerepgeo.metrics.dimension import IntrinsicDimension
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
from saerepgeo.metrics.reservoir import PointReservoir
from saerepgeo.metrics.separation import (
    AverageEuclideanDistance,
    ClassMomentsMetric,
    FisherRatio,
    RelativeAEDP,
    ScaleFreeMSTW,
)
from saerepgeo.metrics.silhouettes import Silhouette
from saerepgeo.metrics.sparsity import L0, DeadFraction

__all__ = [
    "L0",
    "AverageEuclideanDistance",
    "AverageGeodesicDistance",
    "Betti0",
    "ClassMomentsMetric",
    "ClusterCount",
    "CosineSimilarity",
    "CrossEntropyRecovered",
    "DeadFraction",
    "EffectiveRank",
    "EstimateMetric",
    "FisherRatio",
    "FractionVarianceUnexplained",
    "IntrinsicDimension",
    "KLRecovered",
    "LinearCKA",
    "MeanSquaredError",
    "MinimumSpanningTreeWeight",
    "NumericalRank",
    "ParticipationRatio",
    "PointReservoir",
    "ProcrustesDisparity",
    "RelativeAEDP",
    "RelativeReconstructionBias",
    "ScaleFreeMSTW",
    "Silhouette",
    "StableRank",
]
