"""Every function of a cloud takes every form that points come in, and says the same of each."""

import math

import pytest
import torch

from saerepgeo import geometry
from saerepgeo.geometry import DenseCloud, MatrixCloud, as_cloud, as_float64, take_points
from saerepgeo.geometry.clouds.entries import check_squares, in_float32
from saerepgeo.types import Estimate, SparseLatents

LABELS = torch.arange(90) % 4 - 1
FUNCTIONS = {
    "neighbors": lambda x: geometry.nearest_neighbors(x, 3).distances,
    "two_nn": geometry.two_nn,
    "two_nn_within": lambda x: geometry.two_nn_within(x, LABELS // 2),
    "gride": lambda x: geometry.gride(x).dimensions,
    "radius": lambda x: torch.tensor(geometry.connection_radius(x)),
    "betti_0": lambda x: geometry.betti_0(x, geometry.connection_radius(x, 2)),
    "agd": lambda x: geometry.average_geodesic_distance(x, 5),
    "mst_weight": geometry.mst_weight,
    "cluster": lambda x: geometry.cluster(x, 5).max(),
    "silhouette": lambda x: geometry.silhouette(x, LABELS),
    "singular_values": geometry.singular_values,
    "procrustes": lambda x: geometry.procrustes_disparity(x, REFERENCE),
    "cka": lambda x: geometry.debiased_cka(x, REFERENCE),
    "fisher": lambda x: geometry.fisher_ratio(geometry.class_moments(x, LABELS, 3)),
    "interval": lambda x: torch.tensor(
        geometry.subsample_interval(geometry.mst_weight, x, n_draws=5)[:2]
    ),
    "permuted": lambda x: torch.tensor(
        geometry.permutation_test(geometry.silhouette, x, LABELS, 5).p_value
    ),
}
OF_COORDINATES = ("singular_values", "procrustes", "cka", "fisher")
"""Not of distances alone."""
REFERENCE = torch.randn(90, 7, generator=torch.Generator().manual_seed(1))


def forms() -> dict:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 40, generator=generator).double()
    x = x * (torch.rand(90, 40, generator=generator) < 0.3)
    return {
        "dense": x,
        "coo": x.to_sparse(),
        "csr": x.to_sparse_csr(),
        "latents": SparseLatents.from_dense(x),
        "rows": DenseCloud(x),
        "few entries": as_cloud(x.to_sparse()),
        "distances": MatrixCloud.of_points(x),
    }


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_the_form_of_the_points_changes_nothing(name: str) -> None:
    found = {}
    for form, points in forms().items():
        if form == "distances" and name in OF_COORDINATES:
            with pytest.raises(ValueError, match="distances only"):
                FUNCTIONS[name](points)
            continue
        value = FUNCTIONS[name](points)
        found[form] = value.value if isinstance(value, Estimate) else value
    for value in found.values():
        assert not value.isnan().any()
        torch.testing.assert_close(value, found["dense"], rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_some_of_the_points_are_taken_alike_from_every_form() -> None:
    rows = torch.tensor([5, 3, 80])
    expected = forms()["dense"][rows]
    for form, points in forms().items():
        taken = take_points(points, rows)
        if form == "distances":
            assert torch.allclose(taken.distances, torch.cdist(expected, expected), atol=1e-6)
        else:
            torch.testing.assert_close(as_float64(taken), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_the_size_is_the_root_mean_square_distance_to_the_mean() -> None:
    points = forms() | {"aside": DenseCloud(forms()["dense"] + 3)}
    x = forms()["dense"]
    expected = float((x - x.mean(0)).square().sum(1).mean().sqrt())
    for form, given in points.items():
        assert as_cloud(given).size() == pytest.approx(expected, rel=1e-9), form


def test_no_points_are_undefined_and_not_an_error() -> None:
    for points in (
        torch.zeros(0, 3),
        SparseLatents(torch.zeros(0, 2), torch.zeros(0, 2).long(), 9),
    ):
        for figure in (
            geometry.two_nn(points),
            geometry.mst_weight(points),
            geometry.betti_0(points, 1.0),
            geometry.average_geodesic_distance(points),
            geometry.silhouette(points, torch.zeros(0, dtype=torch.long)),
        ):
            assert math.isnan(figure)
            assert figure.n_used == 0


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_a_cloud_leaves_the_points_as_they_are() -> None:
    for form in ("latents", "csr", "coo"):
        points = forms()[form]
        before = as_float64(points).clone()
        as_cloud(points)
        assert torch.equal(as_float64(points), before), form


@pytest.mark.parametrize(("power", "fits"), [(-62, False), (-59, True), (59, True), (61, False)])
def test_what_float32_cannot_square_stays_float64(power: int, fits: bool) -> None:
    points = torch.tensor([[1.0, -0.5]], dtype=torch.float64) * 2.0**power
    found = in_float32(points)
    assert found.dtype == (torch.float32 if fits else torch.float64)
    assert torch.equal(found.double(), points)


@pytest.mark.parametrize(
    ("power", "fits"), [(-512, False), (-511, True), (510, True), (511, False)]
)
def test_squares_must_be_normal_numbers_that_add_up(power: int, fits: bool) -> None:
    points = torch.full((2, 1), 2.0**power, dtype=torch.float64)
    if fits:
        check_squares(points)
    else:
        with pytest.raises(ValueError, match="squares"):
            check_squares(points)


@pytest.mark.parametrize("value", [-0.5, -2.0])
def test_distances_below_zero_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="≥ 0"):
        MatrixCloud(torch.tensor([[0.0, value], [value, 0.0]]))


def test_distances_keep_their_precision() -> None:
    third = torch.tensor([[0.0, 1 / 3], [1 / 3, 0.0]], dtype=torch.float64)
    assert torch.equal(MatrixCloud(third).distances, third)
    assert MatrixCloud(third.bfloat16()).distances.dtype == torch.float32
