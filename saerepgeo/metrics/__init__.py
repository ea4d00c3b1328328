"""The geometry functions as torchmetrics: accumulate over batches and processes, then compute once.

The same points give the same result, whatever the batches and however many the processes.
"""

from saerepgeo.lazy import export_names
from saerepgeo.metrics.alignment import LinearCKA as LinearCKA
from saerepgeo.metrics.alignment import ProcrustesDisparity as ProcrustesDisparity
from saerepgeo.metrics.alignment import UnmatchedMass as UnmatchedMass
from saerepgeo.metrics.cloud_metric import CloudFigure as CloudFigure
from saerepgeo.metrics.cloud_metric import CloudMetric as CloudMetric
from saerepgeo.metrics.cloud_metric import PairMetric as PairMetric
from saerepgeo.metrics.clusters import ClusterCount as ClusterCount
from saerepgeo.metrics.clusters import NoiseShare as NoiseShare
from saerepgeo.metrics.dimension import GRIDE as GRIDE
from saerepgeo.metrics.dimension import TwoNN as TwoNN
from saerepgeo.metrics.dimension import TwoNNPerCluster as TwoNNPerCluster
from saerepgeo.metrics.dimension import TwoNNWithin as TwoNNWithin
from saerepgeo.metrics.geometry_metric import EstimateMetric as EstimateMetric
from saerepgeo.metrics.graphs import AverageGeodesicDistance as AverageGeodesicDistance
from saerepgeo.metrics.graphs import Betti0 as Betti0
from saerepgeo.metrics.graphs import MinimumSpanningTreeWeight as MinimumSpanningTreeWeight
from saerepgeo.metrics.norms import ExplainedVarianceLegacy as ExplainedVarianceLegacy
from saerepgeo.metrics.norms import L2Norms as L2Norms
from saerepgeo.metrics.norms import L2Ratio as L2Ratio
from saerepgeo.metrics.rank import EffectiveRank as EffectiveRank
from saerepgeo.metrics.rank import NumericalRank as NumericalRank
from saerepgeo.metrics.rank import ParticipationRatio as ParticipationRatio
from saerepgeo.metrics.rank import StableRank as StableRank
from saerepgeo.metrics.reconstruction import CosineSimilarity as CosineSimilarity
from saerepgeo.metrics.reconstruction import (
    FractionVarianceUnexplained as FractionVarianceUnexplained,
)
from saerepgeo.metrics.reconstruction import MeanSquaredError as MeanSquaredError
from saerepgeo.metrics.reconstruction import (
    RelativeReconstructionBias as RelativeReconstructionBias,
)
from saerepgeo.metrics.reconstruction import RobustFVU as RobustFVU
from saerepgeo.metrics.recovered import CrossEntropyRecovered as CrossEntropyRecovered
from saerepgeo.metrics.recovered import KLRecovered as KLRecovered
from saerepgeo.metrics.separation import AverageEuclideanDistance as AverageEuclideanDistance
from saerepgeo.metrics.separation import ClassMomentsMetric as ClassMomentsMetric
from saerepgeo.metrics.separation import DebiasedAEDP as DebiasedAEDP
from saerepgeo.metrics.separation import DebiasedFisherRatio as DebiasedFisherRatio
from saerepgeo.metrics.separation import DebiasedRelativeAEDP as DebiasedRelativeAEDP
from saerepgeo.metrics.separation import FisherRatio as FisherRatio
from saerepgeo.metrics.separation import RelativeAEDP as RelativeAEDP
from saerepgeo.metrics.separation import ScaleFreeMSTW as ScaleFreeMSTW
from saerepgeo.metrics.separation import Silhouette as Silhouette
from saerepgeo.metrics.sparsity import L0 as L0
from saerepgeo.metrics.sparsity import L1 as L1
from saerepgeo.metrics.sparsity import ActivationFrequencies as ActivationFrequencies
from saerepgeo.metrics.sparsity import DeadFraction as DeadFraction
from saerepgeo.metrics.spectral_ranks import SpectralRanks as SpectralRanks
from saerepgeo.metrics.tensor_ranks import TensorRanks as TensorRanks
from saerepgeo.metrics.wrappers import Evidence as Evidence
from saerepgeo.metrics.wrappers import GaussianNull as GaussianNull
from saerepgeo.metrics.wrappers import NullTest as NullTest
from saerepgeo.metrics.wrappers import PermutedItems as PermutedItems
from saerepgeo.metrics.wrappers import RandomDictionaries as RandomDictionaries
from saerepgeo.metrics.wrappers import RandomPairing as RandomPairing
from saerepgeo.metrics.wrappers import SubsampleInterval as SubsampleInterval

export_names(__name__)
