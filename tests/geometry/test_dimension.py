"""Intrinsic dimension: exact laws, scikit-dimension, invariances, degenerate clouds."""

import math
import warnings
from functools import partial
from inspect import unwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, ortho_group
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from saerepgeo.geometry import (
    dimension_from_ratios,
    gride,
    nearest_neighbors,
    two_nn,
    two_nn_within,
)
from saerepgeo.types import SparseLatents

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from skdim.id import GRIDE, TwoNN

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=generator(seed), dtype=F64)


def curved(n: int = 400, dim: int = 40) -> Tensor:
    """A bent 3-dimensional sheet in `dim` dimensions."""
    flat = normal(n, 3)
    return torch.tanh(flat @ normal(3, dim, 1)) + 0.1 * flat @ normal(3, dim, 2)


def latents(n: int, d_sae: int = 600, k: int = 8, seed: int = 0) -> SparseLatents:
    indices = torch.rand(n, d_sae, generator=generator(seed)).topk(k).indices
    return SparseLatents(torch.rand(n, k, generator=generator(seed + 1)), indices, d_sae)


def oracle(points: Tensor, k: int) -> np.ndarray:
    model = NearestNeighbors(n_neighbors=k + 1, algorithm="ball_tree").fit(points.double().numpy())
    return model.kneighbors(points.double().numpy())[0][:, 1:]


@pytest.mark.parametrize(("n", "dim"), [(200, 5), (500, 40)])
@pytest.mark.parametrize("method", ["linear", "mle"])
@pytest.mark.parametrize("discard", [0.0, 0.1, 0.37])
def test_two_nn_matches_scikit_dimension(n: int, dim: int, method, discard: float) -> None:
    points = normal(n, dim)
    # at 0 the oracle's line meets log 0; setting only the last point aside is what ours does
    at_least = 1 / n if method == "linear" else 0.0
    with np.errstate(divide="ignore"):
        expected = TwoNN(discard_fraction=max(discard, at_least), method=method).fit(points.numpy())
    found = two_nn(points, discard, method=method)
    assert float(found) == pytest.approx(float(expected.dimension_), rel=1e-10)
    assert (found.n_used, found.n_dropped) == (n, 0)


@pytest.mark.parametrize("dim", [5, 40])
def test_gride_matches_scikit_dimension(dim: int) -> None:
    points = normal(300, dim)
    expected = GRIDE(multiscale=True, range_max=64).fit(points.numpy())
    found = gride(points)
    assert found.n1.tolist() == expected.scales_.tolist() == [1, 2, 4, 8, 16, 32]
    np.testing.assert_allclose(found.dimensions, expected.dimension_scales_, rtol=1e-9)
    np.testing.assert_allclose(found.standard_errors, expected.error_scales_, rtol=1e-9)
    np.testing.assert_allclose(found.distances, expected.radius_scales_, rtol=1e-10)


def test_gride_at_one_neighbor_is_the_mle() -> None:
    points = curved()
    assert float(gride(points, [1]).dimensions) == pytest.approx(
        float(two_nn(points, 0.0, method="mle")), rel=1e-10
    )


@pytest.mark.parametrize("dimension", [0.5, 3.0, 40.0])
def test_exact_pareto_ratios_give_the_dimension_within_its_interval(dimension: float) -> None:
    # 2 d Σ log μ is χ² with 2N degrees of freedom
    n = 5000
    ratios = torch.rand(n, generator=generator(4), dtype=F64).pow(-1 / dimension)
    low, high = (2 * (n - 1) * dimension / chi2.ppf(q, 2 * n) for q in (0.999, 0.001))
    assert low < float(dimension_from_ratios(ratios, 0.0, method="mle")) < high
    for method in ("linear", "mle"):
        found = float(dimension_from_ratios(ratios, 0.1, method=method))
        assert found == pytest.approx(dimension, rel=0.06)


def test_two_nn_sees_the_sheet_and_not_the_space() -> None:
    assert float(two_nn(curved(2000))) == pytest.approx(3, abs=0.35)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_rigid_motion_scale_and_order_change_nothing(
    seed: int, scale: float, offset: float
) -> None:
    points = normal(80, 14, seed)
    turn = torch.from_numpy(ortho_group.rvs(14, random_state=seed))
    order = torch.randperm(80, generator=generator(seed))
    moved = scale * (points @ turn)[order] + offset
    assert float(two_nn(moved)) == pytest.approx(float(two_nn(points)), rel=1e-6)
    torch.testing.assert_close(
        gride(moved, [1, 4]).dimensions, gride(points, [1, 4]).dimensions, rtol=1e-6, atol=0
    )


def test_a_large_offset_in_float32_costs_nothing_but_its_rounding() -> None:
    points = (curved().float() + 64).to(torch.float32)
    assert float(two_nn(points)) == pytest.approx(float(two_nn(points - 64)), rel=1e-9)


@pytest.mark.parametrize("jitter", [0.0, 1e-9])
@pytest.mark.parametrize("dim", [4, 40])
def test_duplicates_are_merged_and_counted(jitter: float, dim: int) -> None:
    points = curved(300, dim)
    copies = torch.cat([points, points[:100], points[:50], points[:50]])
    copies[300:] += jitter * normal(200, dim, 9)
    found, expected = two_nn(copies), two_nn(points)
    assert (found.n_used, found.n_dropped) == (300, 200)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    curve = gride(copies, [1, 2])
    assert (curve.n_used, curve.n_dropped) == (300, 200)


def test_sparse_duplicates_are_merged() -> None:
    points = latents(200)
    doubled = SparseLatents(points.values.repeat(2, 1), points.indices.repeat(2, 1), points.d_sae)
    found = two_nn(doubled)
    assert (found.n_used, found.n_dropped) == (200, 200)
    assert float(found) == pytest.approx(float(two_nn(points)), rel=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 29])
@pytest.mark.parametrize("dim", [0, 3, 30])
def test_too_few_points_are_undefined(n: int, dim: int) -> None:
    points = normal(n, dim)
    for found in (two_nn(points), gride(points)):
        assert "at least 30" in str(found.reason)
        assert found.n_used + found.n_dropped == n
    assert math.isnan(two_nn(points))
    assert gride(points).dimensions.shape == (0,)


@pytest.mark.parametrize("dim", [1, 30, 300])
def test_equal_points_are_one_point(dim: int) -> None:
    found = two_nn(torch.full((100, dim), 0.1))
    assert math.isnan(found)
    assert (found.n_used, found.n_dropped) == (1, 99)
    assert gride(torch.full((100, dim), 0.1)).n_dropped == 99


def test_a_lattice_has_no_dimension() -> None:
    line = torch.arange(100.0)[:, None]
    found = two_nn(line[1:-1], 0.1)
    assert math.isnan(found)
    assert found.reason == "all neighbors are equally far"


def test_constant_columns_change_nothing() -> None:
    points = curved(200, 20)
    wider = torch.cat([points, torch.full((200, 7), 3.7, dtype=F64)], 1)
    assert float(two_nn(wider)) == pytest.approx(float(two_nn(points)), rel=1e-10)


def test_gride_leaves_out_scales_beyond_the_points() -> None:
    assert gride(normal(40, 3)).n1.tolist() == [1, 2, 4, 8, 16]
    mostly_copies = torch.cat([normal(40, 3), normal(1, 3).expand(60, 3)])
    assert gride(mostly_copies).n1.tolist() == [1, 2, 4, 8, 16]


def test_low_precision_input_is_measured_in_float64() -> None:
    points = curved()
    assert two_nn(points.bfloat16()).value.dtype == F64
    assert float(two_nn(points.float())) == pytest.approx(float(two_nn(points)), rel=1e-4)


@pytest.mark.parametrize(
    "function", [two_nn, gride, partial(unwrap(nearest_neighbors), n_neighbors=1)]
)
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(50, 2, dtype=torch.long), "floating"),
        (torch.full((50, 2), math.nan), "finite"),
        (torch.full((50, 2), math.inf).to_sparse(), "finite"),
        (torch.ones(50), "matrix"),
    ],
    ids=["integer", "nan", "sparse infinite", "vector"],
)
def test_bad_points_are_refused(function, points: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unwrap(function)(points)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (two_nn, {"discard": 1.0}, "`discard`"),
        (two_nn, {"tolerance": -1.0}, "`tolerance`"),
        (gride, {"n1": [0, 1]}, "`n1`"),
        (gride, {"n1": []}, "`n1`"),
        (gride, {"tolerance": 1.0}, "`tolerance`"),
    ],
)
def test_bad_arguments_are_refused(function, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unwrap(function)(normal(50, 3), **arguments)


@pytest.mark.parametrize(
    "ratios", [torch.tensor([0.5, 2.0]), torch.ones(2, 2), torch.ones(2).long()]
)
def test_bad_ratios_are_refused(ratios: Tensor) -> None:
    with pytest.raises(ValueError, match="`ratios`"):
        unwrap(dimension_from_ratios)(ratios)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="`method`"):
        unwrap(dimension_from_ratios)(torch.full((9,), 2.0), method="best")


def test_too_few_ratios_are_undefined() -> None:
    assert "at least 2" in str(dimension_from_ratios(torch.tensor([2.0, 3.0])).reason)
    assert "at least 2" in str(dimension_from_ratios(torch.zeros(0)).reason)


def test_dimension_within_classes_does_not_see_how_lie_to_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40).repeat_interleave(25)
    square = torch.rand(1000, 2, generator=generator)
    frames = torch.linalg.qr(torch.randn(40, 12, 2, generator=generator)).Q
    centers = 0.3 * torch.randn(40, 12, generator=generator)  # classes overlap
    points = torch.einsum("nc,ndc->nd", square, frames[labels]) + centers[labels]
    found = two_nn_within(points, labels)
    assert float(found) == pytest.approx(2, abs=0.2)
    assert found.n_used == 1000
    few = two_nn_within(points[:29], labels[:29])
    assert math.isnan(float(few))
    assert few.reason is not None


@pytest.mark.parametrize(("n", "is_defined"), [(29, False), (30, True)])
def test_thirty_points_are_enough(n: int, is_defined: bool) -> None:
    points, labels = normal(n, 4), torch.arange(n) % 2
    for found in (two_nn(points), two_nn_within(points, labels), gride(points, [1])):
        assert (found.reason is None) == is_defined
        assert found.n_used == n


def test_points_without_two_neighbors_of_their_class_are_counted() -> None:
    points = normal(60, 3)
    points[1] = points[0]
    labels = torch.arange(60) % 2
    labels[50:52], labels[52:55] = 7, -1  # a class of two, and background
    found = two_nn_within(points, torch.where(points[:, 0] == points[0, 0], 0, labels))
    assert (found.n_used, found.n_dropped) == (53, 4)
