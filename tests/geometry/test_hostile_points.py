"""Every public function on hostile points: a row each, which says where it differs from `hostile`.

A public function without a row fails. `power`: by which power of a factor the result grows.
"""

from collections.abc import Callable, Iterator
from inspect import isclass, isfunction
from typing import Any, NamedTuple

import jaxtyping
import pytest
import torch
from torch import Tensor

from saerepgeo import geometry as g
from saerepgeo.geometry import Cloud
from saerepgeo.types import SparseLatents
from tests.geometry.hostile import (
    ALIKE,
    DISTANCES,
    FINITE,
    NOT_TAKEN,
    OF_DISTANCES,
    OF_LATENTS,
    OF_POINTS,
    OF_SPECTRA,
    POINTS,
    REFUSED,
    SPECTRUM,
    UNDEFINED,
    Kind,
    faults,
    normal,
)


class Row(NamedTuple):
    call: Callable[[Any], Any]
    power: int = 0
    differs: dict[str, Any] = {}  # noqa: RUF012
    """By kind."""
    takes: str = "points"


def labels_of(x: Any) -> Tensor:
    return torch.arange(g.count_points(x)) % 3


def beside(x: Any) -> Tensor:
    return normal(g.count_points(x), 4, seed=1)


def moments(x: Any) -> g.ClassMoments:
    return g.class_moments(x, labels_of(x), 3)


def sketch(x: Any, size: int | None = None) -> g.Sketch:
    dim = x.d_sae if isinstance(x, SparseLatents) else x.shape[-1] if x.ndim else 1
    return g.extend_sketch(g.empty_sketch(dim, size or max(dim, 1)), x)


def spectra(x: Any) -> g.ModeSpectra:
    n = torch.arange(g.count_points(x))
    return g.mode_spectra(x, n // 3, n % 3)


def lengths(cloud: Cloud) -> Tensor:
    n = torch.arange(max(cloud.n_points - 1, 0))
    return cloud.lengths(torch.stack([n, n + 1], 1))


def interval(x: Any) -> Any:
    found = g.subsample_interval(g.mst_weight, x, n_draws=5)
    return (found.low, found.high) if found.n_draws else found


DEGENERATE = ("empty", "no columns", "one point", "two equal", "all equal", "all 0")
HUGE = ("1e-320", "1e-200", "1e200", "latents at 1e200", "latents at 1e-200")
ANYTHING = dict.fromkeys(DEGENERATE, FINITE)
"""Few or equal points are nothing special."""
EQUAL_0 = dict.fromkeys(("two equal", "all equal", "all 0"), 0.0)
MOVES = {"far away": FINITE}
"""Not invariant, or loses digits, as documented."""
SQUARES = dict.fromkeys(HUGE, REFUSED) | MOVES
"""Sums of squares, in which such numbers cannot be held."""
TENSORS = dict.fromkeys(OF_LATENTS, NOT_TAKEN)
ANY_SHAPE = dict.fromkeys(("a scalar", "a vector", "3-D"), FINITE)
ANY_NUMBER = {"NaN": FINITE, "inf": FINITE, "-inf": FINITE, "integers": FINITE, "booleans": FINITE}

"""Fewer directions stand out from rounding."""

ROWS: dict[str, Row] = {
    # what holds points
    "as_cloud": Row(lambda x: lengths(g.as_cloud(x)), 1, ANYTHING),
    "as_float64": Row(g.as_float64, 1, ANYTHING | MOVES),
    "check_finite": Row(g.check_finite, 0, ANYTHING | ANY_SHAPE | TENSORS),
    "take_points": Row(
        lambda x: g.as_float64(g.take_points(x, torch.arange(g.count_points(x)))),
        1,
        ANYTHING | MOVES,
    ),
    "DenseCloud": Row(lambda x: lengths(g.DenseCloud(x)), 1, ANYTHING | MOVES | TENSORS),
    "SparseCloud": Row(
        lambda x: lengths(g.as_cloud(x.to_sparse() if isinstance(x, Tensor) else x)), 1, ANYTHING
    ),
    "MatrixCloud": Row(lambda x: g.MatrixCloud(x).size(), 1, {}, "distances"),
    "LabeledCloud": Row(
        lambda x: g.mst_weight(g.LabeledCloud(x, labels_of(x)).coordinates()),
        1,
        {"no columns": 0.0, "one point": 0.0} | EQUAL_0 | {"all equal": FINITE},
    ),
    # neighbors, graphs, dimension, clusters
    "nearest_neighbors": Row(
        lambda x: g.nearest_neighbors(x, 2).distances,
        1,
        dict.fromkeys(("empty", "one point", "two equal"), REFUSED)
        | {"all equal": 0.0, "all 0": 0.0},
    ),
    "distinct_points": Row(lambda x: g.distinct_points(g.as_cloud(x), 2, 1e-6)[0], 0, ANYTHING),
    "single_linkage": Row(
        lambda x: torch.from_numpy(g.single_linkage(g.as_cloud(x)).heights), 1, ANYTHING
    ),
    "minimum_spanning_tree": Row(lambda x: g.minimum_spanning_tree(x).lengths, 1, ANYTHING),
    "mst_weight": Row(g.mst_weight, 1, {"one point": 0.0} | EQUAL_0),
    "connection_radius": Row(g.connection_radius, 1, ANYTHING | EQUAL_0),
    "betti_0": Row(
        lambda x: g.betti_0(x, g.connection_radius(x, 2)),
        0,
        dict.fromkeys(("one point", *EQUAL_0), 1.0),
    ),
    "average_geodesic_distance": Row(lambda x: g.average_geodesic_distance(x, 5), 1, EQUAL_0),
    "two_nn": Row(g.two_nn),
    "two_nn_within": Row(lambda x: g.two_nn_within(x, labels_of(x))),
    "gride": Row(lambda x: (found := g.gride(x, (1, 4)))._replace(distances=found.n1)),
    "cluster": Row(lambda x: g.cluster(x, 4), 0, dict.fromkeys(DEGENERATE, -1.0)),
    # of classes
    "class_moments": Row(lambda x: moments(x).sums, 1, ANYTHING | SQUARES),
    "centroids": Row(lambda x: g.centroids(moments(x)), 1, ANYTHING | SQUARES),
    "within_scatter": Row(lambda x: g.within_scatter(moments(x)), 2, ANYTHING | SQUARES),
    "fisher_ratio": Row(lambda x: g.fisher_ratio(moments(x)), 0, SQUARES),
    "debiased_aedp": Row(
        lambda x: g.debiased_aedp(moments(x)), 1, SQUARES | {"all equal": 0.0, "all 0": 0.0}
    ),
    "debiased_relative_aedp": Row(lambda x: g.debiased_relative_aedp(moments(x)), 0, SQUARES),
    "debiased_fisher_ratio": Row(lambda x: g.debiased_fisher_ratio(moments(x)), 0, SQUARES),
    "debiased_squared_distances": Row(
        lambda x: g.debiased_squared_distances(g.ClassMoments(*(y[None] for y in moments(x)))),
        2,
        ANYTHING | SQUARES,
    ),
    "relative_aedp": Row(lambda x: g.relative_aedp(moments(x)), 0, SQUARES),
    "average_pairwise_distance": Row(g.average_pairwise_distance, 1, EQUAL_0),
    "pairwise_distances": Row(g.pairwise_distances, 1, ANYTHING | TENSORS),
    "scale_free_mstw": Row(g.scale_free_mstw),
    "silhouette": Row(lambda x: g.silhouette(x, labels_of(x)), 0, {"all equal": 0.0, "all 0": 0.0}),
    "permutation_test": Row(
        lambda x: g.permutation_test(g.silhouette, x, labels_of(x), 9),
        0,
        {"all equal": FINITE, "all 0": FINITE, "no columns": FINITE},
    ),
    "subsample_interval": Row(interval, 1, EQUAL_0),
    # of matrices
    "singular_values": Row(g.singular_values, 1, ANYTHING | MOVES),
    "effective_rank": Row(g.effective_rank, takes="spectrum"),
    "stable_rank": Row(g.stable_rank, takes="spectrum"),
    "participation_ratio": Row(g.participation_ratio, takes="spectrum"),
    "numerical_rank": Row(
        lambda x: g.numerical_rank(x, (5, 8)).rank, 0, {"empty": 0.0, "all 0": 0.0}, "spectrum"
    ),
    "mode_spectra": Row(lambda x: spectra(x).values, 1, ANYTHING | MOVES),
    "rank_by_rule": Row(lambda x: g.rank_by_rule(spectra(x), "prompt", 0.01), 0, ANYTHING | MOVES),
    "empty_sketch": Row(lambda x: g.singular_values(sketch(x).rows), 1, ANYTHING | MOVES),
    "extend_sketch": Row(lambda x: g.singular_values(sketch(x, 2).rows), 1, ANYTHING | SQUARES),
    "merge_sketches": Row(
        lambda x: g.singular_values(g.merge_sketches(sketch(x), sketch(x)).rows),
        1,
        ANYTHING | MOVES,
    ),
    "mean_nearest_cosine": Row(
        g.mean_nearest_cosine, 0, MOVES | TENSORS | {"two equal": 1.0, "all equal": 1.0}
    ),
    # of two sets of points
    "procrustes_disparity": Row(lambda x: g.procrustes_disparity(x, beside(x))),
    "debiased_cka": Row(lambda x: g.debiased_cka(x, beside(x))),
    "debiased_ckas": Row(lambda x: g.debiased_ckas(x, beside(x), [None])[0]),
    "gromov_wasserstein": Row(
        lambda x: g.gromov_wasserstein(x, 2 * x).value,
        2,
        dict.fromkeys(HUGE, REFUSED) | {"empty": REFUSED},
        "distances",
    ),
}
ELSEWHERE = {
    "dimension_from_ratios": "below, of ratios",
    "count_points": "says of anything how many points it holds",
    "match_clusters": "below, of labels",
    "null_test": "below, of draws",
    "sequential_test": "below, of draws",
    "interval_of_draws": "below, of draws",
    "random_dictionary": "test_dictionaries, of SAEs",
}
KINDS_OF = {
    "points": [(x, OF_POINTS) for x in POINTS.values()] + [(POINTS["few entries"], OF_LATENTS)],
    "spectrum": [(SPECTRUM, OF_SPECTRA)],
    "distances": [(DISTANCES + DISTANCES.T, OF_DISTANCES)],
}


@pytest.fixture(autouse=True)
def _as_users_see_it() -> Iterator[None]:
    """Switch the checks of types off, which stand before our own in tests alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_every_public_function_has_a_row() -> None:
    public = {name: getattr(g, name) for name in g.__all__}
    functions = {name for name, value in public.items() if isfunction(value)}
    clouds = {n for n, v in public.items() if isclass(v) and issubclass(v, Cloud | g.LabeledCloud)}
    clouds -= {"Cloud"}
    assert functions | clouds == ROWS.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("name", ROWS)
def test_hostile_points(name: str) -> None:
    call, power, differs, takes = ROWS[name]
    found = []
    for ordinary, kinds in KINDS_OF[takes]:
        found += faults(call, ordinary, kinds, power, differs)
    assert not found, "\n".join([name, *found])


LABELS = torch.arange(36) % 3
OF_LABELS: dict[str, Kind] = {
    "floats": Kind(lambda x: x.double()),
    "booleans": Kind(lambda x: x > 0),
    "too few": Kind(lambda x: x[1:]),
    "a matrix": Kind(lambda x: x[:, None]),
    "a scalar": Kind(lambda x: x[0]),
    "int8": Kind(lambda x: x.to(torch.int8), ALIKE),
    "all −1": Kind(lambda x: -torch.ones_like(x), UNDEFINED),
    "below −1": Kind(lambda x: x - 2),
    "one class": Kind(torch.zeros_like, UNDEFINED),
    "huge": Kind(lambda x: x + 10**12),
}
ANY_NAME = {"below −1": FINITE, "huge": ALIKE}
X = POINTS["narrow"]
WITH_LABELS: dict[str, Row] = {
    "class_moments": Row(lambda y: g.fisher_ratio(g.class_moments(X, y, 3))),
    "silhouette": Row(lambda y: g.silhouette(X, y), 0, ANY_NAME),
    "two_nn_within": Row(lambda y: g.two_nn_within(X, y), 0, ANY_NAME | {"one class": FINITE}),
    "permutation_test": Row(lambda y: g.permutation_test(g.silhouette, X, y, 9), 0, ANY_NAME),
    "LabeledCloud": Row(
        lambda y: g.fisher_ratio(g.LabeledCloud(X, y).moments), 0, {"below −1": FINITE}
    ),
    "mode_spectra": Row(
        lambda y: g.mode_spectra(X, torch.arange(36), y).values,
        0,
        {"all −1": REFUSED, "one class": FINITE},
    ),
    "match_clusters": Row(
        lambda y: g.match_clusters(y, LABELS).unmatched_mass,
        0,
        ANY_NAME | {"all −1": FINITE, "one class": FINITE},
    ),
}
DRAWS = torch.tensor([0.5, 1.5, 1.0, 2.0], dtype=torch.float64)
OF_DRAWS: dict[str, Kind] = {
    "NaN or inf among them": Kind(
        lambda x: torch.cat([x, x.new_tensor([torch.nan, torch.inf, -torch.inf])]), ALIKE
    ),
    "none": Kind(lambda x: x[:0], UNDEFINED),
    "all infinite": Kind(lambda x: x / 0, UNDEFINED),
}


def p_value(draws: Tensor) -> Any:
    found = g.null_test(1.2, draws.tolist())
    return found.p_value if found.reason is None else found


@pytest.mark.parametrize("name", WITH_LABELS)
def test_hostile_labels(name: str) -> None:
    call, power, differs, _ = WITH_LABELS[name]
    found = faults(call, LABELS, OF_LABELS, power, differs)
    assert not found, "\n".join([name, *found])


def test_hostile_draws() -> None:
    assert not faults(p_value, DRAWS, OF_DRAWS)
    assert not faults(lambda x: g.interval_of_draws(1.0, x.tolist(), 0.5), DRAWS, OF_DRAWS)
    for observed in (torch.nan, torch.inf, -torch.inf):
        assert g.null_test(observed, DRAWS.tolist()).reason is not None
        assert g.sequential_test(observed, DRAWS.tolist()).reason is not None
        assert g.interval_of_draws(observed, DRAWS.tolist(), 0.5).n_draws == 0
    for fraction, level in ((1.0, 0.9), (-0.1, 0.9), (0.5, 0.0), (0.5, 1.0), (torch.nan, 0.5)):
        with pytest.raises(ValueError, match="fraction"):
            g.interval_of_draws(1.0, DRAWS.tolist(), fraction, level=level)


def test_hostile_ratios() -> None:
    ratios = 1 + normal(40).abs()
    differs = dict.fromkeys(("1e-320", "1e-200", "1e-150", "float32 at 1e-30"), REFUSED)
    differs |= dict.fromkeys(("1e150", "1e200"), FINITE) | {"rising": ALIKE, "negative": REFUSED}
    differs |= {"all 0": REFUSED}
    assert not faults(g.dimension_from_ratios, ratios, OF_SPECTRA, 0, differs)
