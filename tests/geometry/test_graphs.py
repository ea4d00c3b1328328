"""Graphs: closed forms, SciPy as oracle, invariances, gradients, degenerate clouds."""

import math
from inspect import unwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from scipy.sparse.csgraph import minimum_spanning_tree as scipy_tree
from scipy.spatial.distance import pdist, squareform
from scipy.stats import ortho_group
from sklearn.manifold import Isomap
from torch import Tensor

from saerepgeo.geometry import (
    average_geodesic_distance,
    betti_0,
    connection_radius,
    minimum_spanning_tree,
    mst_weight,
)
from saerepgeo.geometry.clouds.matrix import MatrixCloud

F64 = torch.float64


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=F64)


def edges(points: Tensor) -> Tensor:
    """Return the lengths of the tree, which are also the radii at which components die."""
    return minimum_spanning_tree(points).lengths.sort().values


def half_circle(n: int) -> Tensor:
    angle = torch.linspace(0, math.pi, n, dtype=F64)
    return torch.stack([angle.cos(), angle.sin()], 1)


@pytest.mark.parametrize(("n", "dim"), [(2, 3), (30, 1), (120, 2), (200, 50)])
def test_tree_matches_scipy(n: int, dim: int) -> None:
    points = normal(n, dim)
    tree = minimum_spanning_tree(points)
    expected = scipy_tree(squareform(pdist(points.numpy())))
    assert float(mst_weight(points)) == pytest.approx(expected.sum(), rel=1e-12)
    ours = {tuple(sorted(edge)) for edge in tree.edges.tolist()}
    assert ours == {tuple(sorted(e)) for e in zip(*map(list, expected.nonzero()), strict=True)}
    ends = points[tree.edges]
    torch.testing.assert_close(tree.lengths, (ends[:, 0] - ends[:, 1]).norm(dim=1))


def test_edges_come_in_the_order_in_which_the_tree_grows() -> None:
    inside = {0}
    for start, end in minimum_spanning_tree(normal(40, 3)).edges.tolist():
        assert start in inside
        assert end not in inside
        inside.add(end)
    assert inside == set(range(40))


def test_known_weights() -> None:
    assert float(mst_weight(torch.arange(10.0)[:, None])) == 9
    # SciPy's sparse tree says 10 here: a stored zero is "no edge" to it
    assert float(mst_weight(torch.tensor([[0.0], [0.0], [5.0]]))) == 5


@pytest.mark.parametrize("n", [0, 1])
def test_no_edges_without_two_points(n: int) -> None:
    points = torch.ones(n, 3)
    assert minimum_spanning_tree(points).edges.shape == (0, 2)
    for figure, value in ((mst_weight(points), 0), (betti_0(points, 1.0), 1)):
        assert figure.n_used == n
        assert (figure.reason, float(figure)) == (None, value) if n else math.isnan(figure)


def test_equal_points_have_a_tree_without_weight_and_a_gradient_without_nan() -> None:
    points = torch.ones(20, 3, requires_grad=True)
    weight = mst_weight(points).value
    weight.backward()
    assert float(weight.detach()) == 0
    assert points.grad is not None
    assert float(points.grad.abs().max()) == 0
    assert float(betti_0(points, 0.0)) == 1


def test_weight_is_differentiable() -> None:
    points = normal(12, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mst_weight(x).value, points)
    assert torch.autograd.gradcheck(edges, points)
    assert torch.autograd.gradcheck(
        lambda x: mst_weight(x).value,
        torch.cat([normal(5, 2), normal(5, 2, 1)]).requires_grad_(),
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_motion_order_and_scale(seed: int, scale: float, offset: float) -> None:
    points = normal(25, 4, seed)
    turn = torch.from_numpy(ortho_group.rvs(4, random_state=seed))
    moved = scale * points[torch.randperm(25)] @ turn + offset
    torch.testing.assert_close(edges(moved), scale * edges(points), rtol=1e-7, atol=1e-9)
    paths, moved_paths = average_geodesic_distance(points, 4), average_geodesic_distance(moved, 4)
    assert float(moved_paths) == pytest.approx(scale * float(paths), rel=1e-7)
    assert moved_paths[1:] == paths[1:]


def test_betti_0_counts_the_components_of_the_ball_graph() -> None:
    points = torch.cat([normal(40, 2), normal(40, 2, 1) + 9])
    distances = squareform(pdist(points.numpy()))
    radii = [0.0, 0.2, 0.5, 1.0, 3.0, 100.0]
    expected = [connected_components(distances <= r)[0] for r in radii]
    for cloud in (points, MatrixCloud.of_points(points)):
        assert [float(betti_0(cloud, r)) for r in radii] == expected
    exact = float(edges(points)[7])
    assert float(betti_0(points, exact)) == float(betti_0(points, exact - 1e-9)) - 1


@pytest.mark.parametrize("dim", [2, 30])
def test_betti_0_joins_points_at_the_radius_itself_whatever_the_offset(dim: int) -> None:
    lattice = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0)).double() / 3
    lattice = torch.cat([lattice, torch.full((36, dim), 0.1, dtype=F64)], 1)
    for offset in (0.0, 0.7, 1e3):
        assert float(betti_0(lattice + offset, (1 + 1e-9) / 3)) == 1
        assert float(betti_0(lattice + offset, (1 - 1e-9) / 3)) == 36
    assert float(betti_0(3 * lattice, 1.0)) == 1


@pytest.mark.parametrize("radius", [-1.0, math.nan])
def test_betti_0_refuses_the_radius(radius: float) -> None:
    with pytest.raises(ValueError, match="`radius`"):
        betti_0(torch.ones(3, 2), radius)


def test_geodesics_of_a_line_and_a_half_circle() -> None:
    line = average_geodesic_distance(torch.arange(10.0)[:, None], 2)
    assert float(line) == pytest.approx(11 / 3, rel=1e-14)
    assert (line.n_used, line.n_dropped) == (10, 0)
    n = 400
    circle = average_geodesic_distance(half_circle(n), 2)
    assert float(circle) == pytest.approx(math.pi / 3 * (n + 1) / (n - 1), rel=1e-4)
    straight = float(pdist(half_circle(n).numpy()).mean())
    assert float(circle) > 1.1 * straight


def test_geodesics_match_isomap() -> None:
    points = normal(150, 4)
    geodesics = Isomap(n_neighbors=8).fit(points.numpy()).dist_matrix_
    expected = geodesics[np.triu_indices(150, 1)].mean()
    assert float(average_geodesic_distance(points, 8)) == pytest.approx(expected, rel=1e-10)


def test_all_neighbors_make_paths_straight() -> None:
    points = normal(30, 3)
    expected = pdist(points.numpy()).mean()
    for k in (29, 1000):
        assert float(average_geodesic_distance(points, k)) == pytest.approx(expected, rel=1e-12)


def test_pairs_between_components_are_left_out() -> None:
    points = torch.cat([torch.arange(4.0), torch.arange(1000.0, 1006.0)])[:, None]
    found = average_geodesic_distance(points, 2)
    assert float(found) == pytest.approx((6 * 5 / 3 + 15 * 7 / 3) / 21)


def test_duplicates_are_edges_of_length_zero() -> None:
    found = average_geodesic_distance(torch.tensor([[0.0], [0.0], [5.0]]), 2)
    assert float(found) == pytest.approx(10 / 3)
    equal = average_geodesic_distance(torch.ones(12, 2), 11)
    assert float(equal) == 0


@pytest.mark.parametrize("n", [0, 1])
def test_geodesics_of_no_pairs_are_undefined(n: int) -> None:
    found = average_geodesic_distance(torch.ones(n, 3))
    assert math.isnan(found)
    assert "no pairs" in str(found.reason)


@pytest.mark.parametrize("function", [minimum_spanning_tree, average_geodesic_distance])
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(5, 2, dtype=torch.long), "floating"),
        (torch.full((5, 2), math.nan), "finite"),
        (torch.full((1, 2), math.inf), "finite"),
        (torch.ones(5), "matrix"),
    ],
)
def test_bad_points_are_refused(function, points: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unwrap(function)(points)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="`n_neighbors`"):
        average_geodesic_distance(torch.ones(5, 2), 0)


def test_the_radius_scales_with_the_points_and_counts_groups_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    disc = torch.rand(400, 2, generator=generator)
    for scale in (1.0, 1000.0):
        groups = scale * torch.cat([disc, disc + 5, disc + torch.tensor([9.0, 0.0])])
        assert float(betti_0(groups, connection_radius(groups))) == 3
        assert float(betti_0(scale * disc, connection_radius(scale * disc))) == 1
    assert connection_radius(7 * disc) == pytest.approx(7 * connection_radius(disc))
    assert connection_radius(disc[:1]) == 0
