"""The two lists of metrics of case 2. The configuration may name others."""

from torchmetrics import Metric

from saerepgeo.metrics import (
    GRIDE,
    AverageEuclideanDistance,
    AverageGeodesicDistance,
    Betti0,
    ClusterCount,
    FisherRatio,
    LinearCKA,
    MinimumSpanningTreeWeight,
    NoiseShare,
    ProcrustesDisparity,
    RelativeAEDP,
    Silhouette,
    TwoNN,
    TwoNNPerCluster,
    TwoNNWithin,
    UnmatchedMass,
)


def sound_metrics() -> list[Metric]:
    """Return the default metrics of the sound protocol, those of pairs among them."""
    return [
        ClusterCount(),
        NoiseShare(),
        Betti0(),
        AverageGeodesicDistance(),
        TwoNN(),
        TwoNNWithin(),
        GRIDE(),
        MinimumSpanningTreeWeight(),
        AverageEuclideanDistance(),
        RelativeAEDP(),
        FisherRatio(),
        Silhouette(),
        ProcrustesDisparity(),
        ProcrustesDisparity("matched_clusters"),
        UnmatchedMass(),
        LinearCKA(),
    ]


def paper_metrics() -> list[Metric]:
    """Return what the paper computes on its embedding, and names.

    The authors' code has no Betti-0 and no AGD, though the paper names them: they are taken on the
    same embedding, with `connection_radius` and the 15 neighbors of the embedding.
    """
    return [
        ClusterCount(),
        TwoNNPerCluster(),
        Betti0(),
        MinimumSpanningTreeWeight("clusters"),
        AverageGeodesicDistance(n_neighbors=15),
        ProcrustesDisparity("cluster_numbers"),
    ]
