"""Every public function of geometry and every metric gives on a device what it gives on the CPU.

And under autocast what it gives without. A function or class without a row fails. Labels and places
lie where the points do.
"""

from collections.abc import Callable
from inspect import isclass, isfunction
from typing import Any

import pytest
import torch
from emulated_device import NAME
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from saerepgeo import geometry as g
from saerepgeo import metrics as m
from saerepgeo.sae.io.build import new_sae
from saerepgeo.types import SparseLatents, generator_for
from tests.geometry.hostile import DISTANCES, POINTS, SPECTRUM, N, normal
from tests.metrics.test_hostile_points import OF_150, TOKENS
from tests.metrics.test_hostile_points import ROWS as METRICS

To = Callable[[Any], Any]
"""Moves what it is given."""
LABELS = torch.arange(N) % 3
PLACES = torch.arange(N) // 3, torch.arange(N) % 3
EDGES = torch.stack([torch.arange(N - 1), torch.arange(N - 1) + 1], 1)
ORDER = torch.arange(N).flip(0)
OTHER = normal(N, 4, seed=1)
RATIOS = 1 + normal(40).abs()
SYMMETRIC = DISTANCES + DISTANCES.T


LATENTS = SparseLatents.from_dense(POINTS["few entries"])
TENSORS = ("check_finite", "DenseCloud", "random_dictionary", "empty_sketch", "extend_sketch")
TENSORS += (
    "mean_nearest_cosine",
    "merge_sketches",
    "average_pairwise_distance",
    "pairwise_distances",
    "scale_free_mstw",
)
"""Take no latents by their active entries."""


def sketch(x: Tensor) -> g.Sketch:
    return g.extend_sketch(g.empty_sketch(x.shape[1], 5, x.device), x)


def random_decoder(x: Tensor, to: To) -> Tensor:
    sae = new_sae("topk", d_in=x.shape[1], d_sae=16, k=2).to(to(x).device).sae
    return g.random_dictionary(sae, to(x), generator_for(0, "test")).W_dec


OF_POINTS: dict[str, Callable[[Any, To], Any]] = {
    "as_cloud": lambda x, to: g.as_cloud(to(x)).lengths(to(EDGES)),
    "as_float64": lambda x, to: g.as_float64(to(x)),
    "check_finite": lambda x, to: g.check_finite(to(x)),
    "take_points": lambda x, to: g.take_points(to(x), to(LABELS)),
    "DenseCloud": lambda x, to: g.DenseCloud(to(x)).lengths(to(EDGES)),
    "LabeledCloud": lambda x, to: g.LabeledCloud(to(x), to(LABELS)).item_centers,
    "nearest_neighbors": lambda x, to: g.nearest_neighbors(to(x), 2).distances,
    "distinct_points": lambda x, to: g.distinct_points(g.as_cloud(to(x)), 2, 1e-6)[0],
    "single_linkage": lambda x, to: list(g.single_linkage(g.as_cloud(to(x))).heights),
    "minimum_spanning_tree": lambda x, to: g.minimum_spanning_tree(to(x)).lengths,
    "mst_weight": lambda x, to: g.mst_weight(to(x)),
    "connection_radius": lambda x, to: g.connection_radius(to(x)),
    "betti_0": lambda x, to: g.betti_0(to(x), g.connection_radius(to(x), 2)),
    "average_geodesic_distance": lambda x, to: g.average_geodesic_distance(to(x), 5),
    "two_nn": lambda x, to: g.two_nn(to(x)),
    "two_nn_within": lambda x, to: g.two_nn_within(to(x), to(LABELS)),
    "gride": lambda x, to: g.gride(to(x), (1, 4)),
    "cluster": lambda x, to: g.cluster(to(x), 4),
    "class_moments": lambda x, to: g.class_moments(to(x), to(LABELS), 3),
    "centroids": lambda x, to: g.centroids(g.class_moments(to(x), to(LABELS), 3)),
    "within_scatter": lambda x, to: g.within_scatter(g.class_moments(to(x), to(LABELS), 3)),
    "fisher_ratio": lambda x, to: g.fisher_ratio(g.class_moments(to(x), to(LABELS), 3)),
    **{
        name: lambda x, to, name=name: getattr(g, name)(g.class_moments(to(x), to(LABELS), 3))
        for name in ("debiased_aedp", "debiased_relative_aedp", "debiased_fisher_ratio")
    },
    "debiased_squared_distances": lambda x, to: g.debiased_squared_distances(
        g.ClassMoments(*(y[None] for y in g.class_moments(to(x), to(LABELS), 3)))
    ),
    "relative_aedp": lambda x, to: g.relative_aedp(g.class_moments(to(x), to(LABELS), 3)),
    "average_pairwise_distance": lambda x, to: g.average_pairwise_distance(to(x)),
    "pairwise_distances": lambda x, to: g.pairwise_distances(to(x)),
    "scale_free_mstw": lambda x, to: g.scale_free_mstw(to(x)),
    "silhouette": lambda x, to: g.silhouette(to(x), to(LABELS)),
    "permutation_test": lambda x, to: g.permutation_test(g.silhouette, to(x), to(LABELS), 9),
    "subsample_interval": lambda x, to: g.subsample_interval(
        lambda part, labels: g.silhouette(part, labels), to(x), to(LABELS), n_draws=5
    ),
    "singular_values": lambda x, to: g.singular_values(to(x)),
    "mode_spectra": lambda x, to: g.mode_spectra(to(x), *map(to, PLACES)).values,
    "rank_by_rule": lambda x, to: g.rank_by_rule(
        g.mode_spectra(to(x), *map(to, PLACES)), "prompt", 0.01
    ),
    "empty_sketch": lambda x, to: g.singular_values(sketch(to(x)).rows),
    "extend_sketch": lambda x, to: g.extend_sketch(sketch(to(x)), to(x)),
    "merge_sketches": lambda x, to: g.merge_sketches(sketch(to(x)), sketch(to(x))),
    "procrustes_disparity": lambda x, to: g.procrustes_disparity(to(x), to(OTHER)),
    "debiased_cka": lambda x, to: g.debiased_cka(to(x), to(OTHER)),
    "debiased_ckas": lambda x, to: g.debiased_ckas(to(x), to(OTHER), [ORDER])[0],
    "random_dictionary": random_decoder,
    "mean_nearest_cosine": lambda x, to: g.mean_nearest_cosine(to(x)),
}
OTHERS: dict[str, Callable[[To], Any]] = {
    "SparseCloud": lambda to: g.as_cloud(to(LATENTS)).size(),
    "MatrixCloud": lambda to: g.MatrixCloud(to(SYMMETRIC)).take(to(LABELS)).size(),
    "count_points": lambda to: g.count_points(to(SPECTRUM)),
    "effective_rank": lambda to: g.effective_rank(to(SPECTRUM)),
    "stable_rank": lambda to: g.stable_rank(to(SPECTRUM)),
    "participation_ratio": lambda to: g.participation_ratio(to(SPECTRUM)),
    "numerical_rank": lambda to: g.numerical_rank(to(SPECTRUM), (5, 8), "gavish-donoho"),
    "gromov_wasserstein": lambda to: g.gromov_wasserstein(to(SYMMETRIC), 2 * to(SYMMETRIC)),
    "dimension_from_ratios": lambda to: g.dimension_from_ratios(to(RATIOS)),
    "match_clusters": lambda to: g.match_clusters(to(LABELS), to(PLACES[1])),
    "null_test": lambda to: g.null_test(1.2, to(SPECTRUM).tolist()),
    "sequential_test": lambda to: g.sequential_test(1.2, to(SPECTRUM).tolist(), n_extreme=2),
    "interval_of_draws": lambda to: g.interval_of_draws(1.0, to(SPECTRUM).tolist(), 0.5),
}


def moved(value: Any, device: torch.device | str) -> Any:
    return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, value)


def assert_alike(found: Any, expected: Any) -> None:
    """Compare numbers and tensors of any tuples; NaN is like NaN."""
    for left, right in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        if isinstance(right, Tensor | float):
            left, right = torch.as_tensor(left).cpu(), torch.as_tensor(right)
            torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9, equal_nan=True)
        else:
            assert left == right


def test_every_public_name_has_a_row() -> None:
    public = {name: getattr(g, name) for name in g.__all__}
    functions = {name for name, value in public.items() if isfunction(value)}
    clouds = {
        n for n, v in public.items() if isclass(v) and issubclass(v, g.Cloud | g.LabeledCloud)
    }
    assert functions | clouds - {"Cloud"} == OF_POINTS.keys() | OTHERS.keys()


@pytest.mark.parametrize("name", OF_POINTS)
def test_of_points(name: str, emulated: torch.device) -> None:
    for x in [*POINTS.values(), *([] if name in TENSORS else [LATENTS])]:
        found = OF_POINTS[name](x, lambda value: moved(value, emulated))
        assert_alike(found, OF_POINTS[name](x, lambda value: value))


@pytest.mark.parametrize("name", OF_POINTS)
def test_of_points_whatever_autocast_the_caller_is_under(name: str) -> None:
    for points in [*POINTS.values(), *([] if name in TENSORS else [LATENTS])]:
        x = moved(points, torch.float32) if isinstance(points, Tensor) else points
        expected = OF_POINTS[name](x, lambda value: value)
        with torch.autocast("cpu", torch.bfloat16):
            assert_alike(OF_POINTS[name](x, lambda value: value), expected)


@pytest.mark.parametrize("name", OTHERS)
def test_of_other_things(name: str, emulated: torch.device) -> None:
    assert_alike(OTHERS[name](lambda value: moved(value, emulated)), OTHERS[name](lambda x: x))


def figures(metric: m.EstimateMetric, device: str, updates: list[Any]) -> Any:
    metric = metric.to(device)
    for first, others in moved(updates, device):
        metric.update(*first, **others)
    assert all(state.device.type == device for state in metric.metric_state.values())
    return metric.compute(), metric.reason


@pytest.mark.parametrize("matrix_points", [2048, 20], ids=["few points", "many points"])
@pytest.mark.parametrize("name", METRICS)
def test_metrics(
    name: str, matrix_points: int, emulated: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saerepgeo.geometry.clouds.labeled.MATRIX_POINTS", matrix_points)
    make, given = METRICS[name].make, METRICS[name].given
    x = POINTS["few entries" if name in OF_150 else "narrow"]
    updates = [([part], given(part)) for part in x.split(20)]
    assert_alike(figures(make(), NAME, updates), figures(make(), "cpu", updates))


@pytest.mark.parametrize("matrix_points", [2048, 20], ids=["few points", "many points"])
@pytest.mark.parametrize("name", METRICS)
def test_metrics_whatever_autocast_the_caller_is_under(
    name: str, matrix_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saerepgeo.geometry.clouds.labeled.MATRIX_POINTS", matrix_points)
    make, given = METRICS[name].make, METRICS[name].given
    x = POINTS["few entries" if name in OF_150 else "narrow"].float()
    updates = [([part], given(part)) for part in x.split(20)]
    expected = figures(make(), "cpu", updates)
    with torch.autocast("cpu", torch.bfloat16):
        assert_alike(figures(make(), "cpu", updates), expected)


@pytest.mark.parametrize("name", TOKENS)
def test_metrics_of_tokens(name: str, emulated: torch.device) -> None:
    updates = [([], TOKENS[name](part)) for part in (normal(9).abs() + 1).split(5)]
    make = getattr(m, name)
    assert_alike(figures(make(), NAME, updates), figures(make(), "cpu", updates))
