"""Separability metrics against the functions they call, over batches, processes and bad input."""

import jaxtyping
import pytest
import torch
from sklearn.metrics import silhouette_score
from torchmetrics import MetricCollection

from saerepgeo.geometry import (
    average_pairwise_distance,
    centroids,
    class_moments,
    debiased_aedp,
    debiased_fisher_ratio,
    debiased_relative_aedp,
    fisher_ratio,
    relative_aedp,
    scale_free_mstw,
)
from saerepgeo.metrics import (
    AverageEuclideanDistance,
    DebiasedAEDP,
    DebiasedFisherRatio,
    DebiasedRelativeAEDP,
    FisherRatio,
    RelativeAEDP,
    ScaleFreeMSTW,
    Silhouette,
)
from saerepgeo.types import SparseLatents
from tests.metrics.harness import check_metric

N_CLASSES = 5
FIGURES = {
    AverageEuclideanDistance: lambda moments: average_pairwise_distance(centroids(moments)),
    RelativeAEDP: relative_aedp,
    FisherRatio: fisher_ratio,
    DebiasedAEDP: debiased_aedp,
    DebiasedRelativeAEDP: debiased_relative_aedp,
    DebiasedFisherRatio: debiased_fisher_ratio,
    ScaleFreeMSTW: lambda moments: scale_free_mstw(centroids(moments)),
}


@pytest.fixture
def unchecked():
    """Switch the shape checks of the tests off, so that bad input meets the package's own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _sample(n=40, dim=6):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % (N_CLASSES + 1) - 1
    centers = 3 * torch.randn(N_CLASSES + 1, dim, generator=generator)
    return centers[labels + 1] + torch.randn(n, dim, generator=generator), labels


def _batches(points, labels, sizes=(7, 13, 20)):
    return list(zip(points.split(sizes), labels.split(sizes), strict=True))


@pytest.mark.parametrize("classes", [None, [0, 2, 3]], ids=["all", "one concept"])
@pytest.mark.parametrize("make", [*FIGURES, Silhouette])
def test_contract(make, classes, process_pair):
    check_metric(lambda: make(N_CLASSES, classes), _batches(*_sample()), process_pair)


@pytest.mark.parametrize("make", FIGURES)
def test_equals_the_function_on_all_points(make):
    points, labels = _sample()
    chosen = [0, 2, 3]
    moments = class_moments(points, labels, N_CLASSES)
    for classes, expected in [(None, moments), (chosen, moments.select(chosen))]:
        metric = make(N_CLASSES, classes)
        for batch in _batches(points, labels):
            metric.update(*batch)
        assert metric.compute().item() == pytest.approx(float(FIGURES[make](expected)), rel=1e-12)


def test_silhouette_is_that_of_scikit_learn():
    points, labels = _sample()
    metric = Silhouette(N_CLASSES)
    for batch in _batches(points, labels):
        metric.update(*batch)
    known = labels >= 0
    expected = silhouette_score(points[known].double().numpy(), labels[known].numpy())
    assert metric.compute().item() == pytest.approx(expected, rel=1e-10)


def test_silhouette_of_a_bounded_sample():
    points, labels = _sample(n=6000)
    metric = Silhouette(N_CLASSES, max_points=500)
    for batch in zip(points.split(1000), labels.split(1000), strict=True):
        metric.update(*batch)
    estimate = metric.estimate()
    known = labels >= 0
    assert len(metric.points) == 500
    assert estimate.n_used == int((metric.columns[:, 0] >= 0).sum())
    expected = silhouette_score(points[known].double().numpy(), labels[known].numpy())
    assert metric.compute().item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("make", [*FIGURES, Silhouette])
def test_sparse_latents(make):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(30, 3, generator=generator)
    indices = torch.stack([torch.randperm(20, generator=generator)[:3] for _ in range(30)])
    sparse, dense = make(N_CLASSES), make(N_CLASSES)
    labels = torch.arange(30) % N_CLASSES
    for rows in (slice(0, 12), slice(12, 30)):
        latents = SparseLatents(values[rows], indices[rows], 20)
        sparse.update(latents, labels[rows])
        dense.update(latents.to_dense(), labels[rows])
    assert sparse.compute().item() == pytest.approx(dense.compute().item(), rel=1e-12)


def test_concepts_of_a_collection_share_one_state():
    points, labels = _sample()
    concepts = {"months": [0, 1, 2], "days": [3, 4]}
    collection = MetricCollection(
        {f"fisher/{name}": FisherRatio(N_CLASSES, ids) for name, ids in concepts.items()}
        | {
            f"aedp/{name}": AverageEuclideanDistance(N_CLASSES, ids)
            for name, ids in concepts.items()
        }
    )
    for batch in _batches(points, labels):
        collection.update(*batch)
    assert len(collection.compute_groups) == 1
    moments = class_moments(points, labels, N_CLASSES)
    results = collection.compute()
    for name, ids in concepts.items():
        chosen = moments.select(ids)
        assert results[f"fisher/{name}"].item() == pytest.approx(float(fisher_ratio(chosen)))
        aedp = average_pairwise_distance(centroids(chosen))
        assert results[f"aedp/{name}"].item() == pytest.approx(float(aedp))


def test_memory_does_not_grow():
    metric = FisherRatio(N_CLASSES)
    points, labels = _sample()
    metric.update(points, labels)
    sizes = {name: getattr(metric, name).numel() for name in metric._defaults}
    for _ in range(5):
        metric.update(points, labels)
    assert {name: getattr(metric, name).numel() for name in metric._defaults} == sizes


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("make", [*FIGURES, Silhouette])
@pytest.mark.parametrize(
    ("points", "labels"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
        (torch.ones(1, 3), torch.tensor([0])),
        (torch.randn(5, 3), torch.zeros(5, dtype=torch.long)),
        (torch.randn(5, 3), torch.full((5,), -1)),
    ],
    ids=["empty", "one point", "one class", "background"],
)
def test_undefined_figures_say_why(make, points, labels):
    metric = make(N_CLASSES)
    assert metric.compute().isnan()  # nothing seen
    assert metric.reason is not None
    metric.reset()
    metric.update(points, labels)
    assert metric.compute().isnan()
    assert metric.reason is not None


def test_equal_points():
    points, labels = torch.full((10, 3), 0.1), torch.arange(10) % N_CLASSES
    for make, expected in [(AverageEuclideanDistance, 0.0), (Silhouette, 0.0)]:
        metric = make(N_CLASSES)
        metric.update(points, labels)
        assert metric.compute().item() == pytest.approx(expected, abs=1e-12)
    for make in (RelativeAEDP, FisherRatio):
        metric = make(N_CLASSES)
        metric.update(points, labels)
        assert metric.compute().isnan()
        assert "no scatter" in metric.reason


def test_empty_classes_count_as_dropped():
    points, labels = _sample()
    for make in FIGURES:
        metric = make(N_CLASSES + 2)
        metric.update(points, labels)
        estimate = metric.estimate()
        assert (estimate.n_used, estimate.n_dropped) == (N_CLASSES, 2)


@pytest.mark.parametrize("make", [*FIGURES, Silhouette])
@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (torch.ones(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.long), "floating point"),
        (torch.full((3, 2), float("nan")), torch.zeros(3, dtype=torch.long), "finite"),
        (torch.ones(3, 2), torch.full((3,), N_CLASSES), "`labels` must lie in"),
        (torch.ones(3, 2), torch.zeros(2, dtype=torch.long), "labels"),
        (torch.ones(3, 7), torch.zeros(3, dtype=torch.long), "columns"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refuses(make, points, labels, message):
    metric = make(N_CLASSES)
    metric.update(torch.randn(8, 2), torch.arange(8) % 4)
    before = metric.compute()
    with pytest.raises(ValueError, match=message):
        metric.update(points, labels)
    metric._computed = None
    assert torch.equal(metric.compute(), before)  # a refused batch leaves no trace


@pytest.mark.parametrize("make", [*FIGURES, Silhouette])
@pytest.mark.parametrize(("n_classes", "classes"), [(0, None), (3, [0, 3]), (3, [-1])])
def test_refuses_classes(make, n_classes, classes):
    with pytest.raises(ValueError, match=r"`(n_)?classes` must"):
        make(n_classes, classes)


@pytest.mark.parametrize("make", [*FIGURES, Silhouette])
def test_plot(make):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    metric = make(N_CLASSES)
    values = [metric(*_sample()), metric(*_sample())]
    for value in (None, values):
        figure, axes = metric.plot(value)
        assert axes.has_data()
        plt.close(figure)
