"""The geometry functions as torchmetrics: accumulate over batches and processes, then compute once.

Each class holds sufficient statistics where they exist, else a bounded sample of points, and calls
`saerepgeo.geometry` for the figure. Whatever the batches and however many the processes, the same
points give the same result.
"""

from saerepgeo.metrics.alignment import ProcrustesDisparity
from saerepgeo.metrics.estimates import EstimateMetric
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
)
from saerepgeo.metrics.sparsity import L0, DeadFraction

__all__ = [
    "L0",
    "AverageEuclideanDistance",
    "ClassMomentsMetric",
    "CosineSimilarity",
    "CrossEntropyRecovered",
    "DeadFraction",
    "EstimateMetric",
    "FisherRatio",
    "FractionVarianceUnexplained",
    "KLRecovered",
    "MeanSquaredError",
    "ProcrustesDisparity",
    "RelativeAEDP",
    "RelativeReconstructionBias",
    "ScaleFreeMSTW",
]
