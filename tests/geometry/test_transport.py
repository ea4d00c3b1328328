"""Gromov–Wasserstein against known optima, brute force and POT; gradients; bad input."""

from inspect import unwrap
from itertools import permutations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saerepgeo.geometry import gromov_wasserstein, pairwise_distances


def _points(seed, n, dim=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def _polygon(n):
    angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_two_point_spaces_at_distances_1_and_3():
    one, three = (pairwise_distances(torch.tensor([[0.0], [d]])) for d in (1.0, 3.0))
    assert gromov_wasserstein(one, three).value.item() == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("n", [3, 5, 7, 8, 11, 12])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_symmetric_optima_are_found(n, seed):
    polygon = _polygon(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    coupling = gromov_wasserstein(pairwise_distances(polygon), pairwise_distances(polygon[order]))
    assert coupling.value.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("n", [7, 26, 72])
def test_a_permuted_copy_is_recognized(n):
    points = _points(0, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    coupling = gromov_wasserstein(pairwise_distances(points), pairwise_distances(points[order]))
    assert coupling.value.item() == pytest.approx(0.0, abs=1e-10)
    assert torch.equal(coupling.plan.argmax(0), order)


@pytest.mark.parametrize("seed", range(8))
def test_never_above_pot_and_near_the_best_permutation(seed):
    c1, c2 = pairwise_distances(_points(seed, 6)), pairwise_distances(_points(seed + 100, 6))
    found = gromov_wasserstein(c1, c2)
    uniform = np.full(6, 1 / 6)
    log = ot.gromov.gromov_wasserstein2(c1.numpy(), c2.numpy(), uniform, uniform, log=True)[1]
    assert found.value.item() <= log["gw_dist"] + 1e-9
    by_permutation = min(
        ((c1 - c2[list(order)][:, list(order)]) ** 2).mean().item()
        for order in permutations(range(6))
    )
    assert found.value.item() <= 1.25 * by_permutation


def test_objective_is_that_of_pot_at_the_plan():
    c1, c2 = pairwise_distances(_points(0, 6)), pairwise_distances(_points(1, 4))
    p, q = torch.rand(6).double(), torch.rand(4).double()
    p, q = p / p.sum(), q / q.sum()
    value, plan = gromov_wasserstein(c1, c2, p, q)
    torch.testing.assert_close(plan.sum(1), p)
    torch.testing.assert_close(plan.sum(0), q)
    constant, h1, h2 = ot.gromov.init_matrix(
        c1.numpy(), c2.numpy(), plan.sum(1).numpy(), plan.sum(0).numpy()
    )
    assert value.item() == pytest.approx(ot.gromov.gwloss(constant, h1, h2, plan.numpy()), rel=1e-9)
    by_hand = torch.einsum(
        "ijkl,ij,kl->", (c1[:, None, :, None] - c2[None, :, None]) ** 2, plan, plan
    )
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-9)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
def test_invariances(seed, scale):
    a, b = _points(seed, 6), _points(seed + 1, 6)
    c1, c2 = pairwise_distances(a), pairwise_distances(b)
    value = gromov_wasserstein(c1, c2, n_anchors=0).value.item()
    rotation = torch.linalg.qr(_points(seed, 5)).Q
    moved = pairwise_distances(a @ rotation + 3)
    assert gromov_wasserstein(moved, c2, n_anchors=0).value.item() == pytest.approx(value, rel=1e-6)
    scaled = gromov_wasserstein(scale * c1, scale * c2, n_anchors=0).value.item()
    assert scaled == pytest.approx(scale**2 * value, rel=1e-6)


def test_gradcheck_through_the_fixed_plan():
    c1 = pairwise_distances(_points(0, 5)).requires_grad_()
    c2 = pairwise_distances(_points(1, 6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: gromov_wasserstein(a, b).value, (c1, c2))


def test_descent_on_points_reaches_the_target_shape():
    target = pairwise_distances(_points(0, 6))
    points = (_points(0, 6) + 0.5 * _points(1, 6)).requires_grad_()
    optimizer, plan, values = torch.optim.Adam([points], lr=0.05), None, []
    for _ in range(150):
        coupling = gromov_wasserstein(pairwise_distances(points), target, plan=plan, n_anchors=0)
        plan = coupling.plan
        optimizer.zero_grad()
        coupling.value.backward()
        optimizer.step()
        values.append(coupling.value.item())
    assert values[-1] < 1e-3 * values[0]


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_an_earlier_plan_is_a_start(seed):
    c1, c2 = pairwise_distances(_points(seed, 12)), pairwise_distances(_points(seed + 100, 12))
    best = gromov_wasserstein(c1, c2)
    without = gromov_wasserstein(c1, c2, n_anchors=0)
    again = gromov_wasserstein(c1, c2, plan=best.plan, n_anchors=0)
    assert again.value.item() <= best.value.item() + 1e-12 < without.value.item()


@pytest.mark.parametrize("seed", [1, 2, 7])
def test_known_correspondence_is_a_start(seed):
    points = _points(seed, 20, 10)
    c1 = pairwise_distances(points)
    c2 = pairwise_distances(points + 0.8 * _points(seed + 50, 20, 10))
    known = ((c1 - c2) ** 2).mean().item()
    assert gromov_wasserstein(c1, c2).value.item() <= known + 1e-12
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    unknown = gromov_wasserstein(c1, c2[order][:, order]).value.item()
    assert unknown > known + 0.01  # the other starts miss it here


def test_degenerate_spaces():
    point, pair = torch.zeros(1, 1), torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    assert gromov_wasserstein(point, point).value.item() == 0.0
    assert gromov_wasserstein(point, pair).value.item() == pytest.approx(4.5)  # mean of C²
    assert gromov_wasserstein(torch.zeros(4, 4), torch.zeros(3, 3)).value.item() == 0.0
    duplicated = pairwise_distances(torch.tensor([[0.0], [0.0], [3.0], [3.0]]))
    assert gromov_wasserstein(duplicated, pair).value.item() == pytest.approx(0.0, abs=1e-12)


def test_gradient_of_coinciding_points_is_finite():
    points = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    value = gromov_wasserstein(pairwise_distances(points), pairwise_distances(_points(0, 4))).value
    assert torch.autograd.grad(value, points)[0].isfinite().all()


GOOD = torch.tensor([[0.0, 1.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 2, dtype=torch.int64), GOOD), "`c1` must be floating"),
        ((GOOD, torch.full((2, 2), float("nan"))), "`c2` must be finite"),
        ((GOOD, torch.full((2, 2), float("inf"))), "`c2` must be finite"),
        ((torch.zeros(0, 0), GOOD), "`c1` must be a square, non-empty"),
        ((torch.zeros(2, 3), GOOD), "`c1` must be a square"),
        ((torch.tensor([[0.0, 1.0], [2.0, 0.0]]), GOOD), "`c1` must be symmetric"),
        ((1e5 * torch.tensor([[0.0, 1.0], [1.01, 0.0]]), GOOD), "`c1` must be symmetric"),
        ((GOOD, GOOD, torch.tensor([0.5, 0.6])), "`p` must hold 2"),
        ((GOOD, GOOD, torch.tensor([1.5, -0.5])), "`p` must hold 2"),
        ((GOOD, GOOD, None, torch.tensor([1.0])), "`q` must hold 2"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        unwrap(gromov_wasserstein)(*arguments)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (torch.zeros(2, 3), "got shape"),
        (torch.full((2, 2), 0.3), "marginals"),
        (torch.tensor([[0.5, 0.0], [0.5, 0.0]]), "marginals"),
        (torch.tensor([[0.5, 0.5], [0.0, 0.0]]), "marginals"),
        (torch.tensor([[0.2501, 0.2499], [0.25, 0.25]]), "marginals"),
        (-GOOD, "got shape"),
    ],
)
def test_refuses_plans(plan, message):
    with pytest.raises(ValueError, match=f"`plan` must.*{message}"):
        unwrap(gromov_wasserstein)(GOOD, GOOD, plan=plan)
