"""The two lists of metrics of case 2. The configuration may name others."""

from torchmetrics import Metric

import saerepgeo.metrics as metrics


def sound_metrics() -> list[Metric]:
    """Return the default metrics of the sound protocol, those of pairs among them."""
    return [
        metrics.ClusterCount(),
        metrics.NoiseShare(),
        metrics.Betti0(),
        metrics.AverageGeodesicDistance(),
        metrics.TwoNN(),
        metrics.TwoNNWithin(),
        metrics.GRIDE(),
        metrics.MinimumSpanningTreeWeight(),
        metrics.AverageEuclideanDistance(),
        metrics.RelativeAEDP(),
        metrics.FisherRatio(),
        metrics.DebiasedRelativeAEDP(),
        metrics.DebiasedFisherRatio(),
        metrics.Silhouette(),
        metrics.ProcrustesDisparity(),
        metrics.ProcrustesDisparity("matched_clusters"),
        metrics.UnmatchedMass(),
        metrics.LinearCKA(),
    ]


def paper_metrics() -> list[Metric]:
    """Return what the paper computes on its embedding, and names.

    The authors' code has no Betti-0 and no AGD, though the paper names them: they are taken on the
    same embedding, with `connection_radius` and the 15 neighbors of the embedding.
    """
    return [
        metrics.ClusterCount(),
        metrics.TwoNNPerCluster(),
        metrics.Betti0(),
        metrics.MinimumSpanningTreeWeight("clusters"),
        metrics.AverageGeodesicDistance(n_neighbors=15),
        metrics.ProcrustesDisparity("cluster_numbers"),
    ]
