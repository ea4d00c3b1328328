"""The terms of the loss: known values, invariances, gradients."""

import pytest
import torch

from saerepgeo.cases.separability.losses import (
    FIGURES,
    mean_squared_error,
    reduced_moments,
    separability_term,
)
from saerepgeo.types import SparseLatents

CONCEPTS = [range(0, 3), range(3, 5)]


@pytest.fixture
def points() -> torch.Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(40) % 5


def term(points, labels, kind="aedp", direction="increase", target=None, plans=None):
    moments = reduced_moments(points, labels, 5)
    return separability_term(moments, CONCEPTS, kind, direction, target, plans)


def distances(points, labels):
    centers = torch.stack([points[labels == k].mean(0) for k in range(5)])
    return torch.cdist(centers, centers)


def test_squared_error_is_the_sum_over_the_width_averaged_over_points():
    assert mean_squared_error(torch.zeros(4, 3), torch.full((4, 3), 2.0)) == 12
    assert mean_squared_error(torch.zeros(1, 3), torch.full((1, 3), 2.0)) == 12
    assert mean_squared_error(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


def test_aedp_by_hand(points, labels):
    d = distances(points, labels)
    first = (d[0, 1] + d[0, 2] + d[1, 2]) / 3
    expected = (first.log() + d[3, 4].log()) / 2
    assert float(term(points, labels, direction="decrease")) == pytest.approx(float(expected), 1e-5)
    assert float(term(points, labels)) == pytest.approx(-float(expected), 1e-5)


@pytest.mark.parametrize("kind", FIGURES)
def test_a_scale_shifts_aedp_and_leaves_fisher(points, labels, kind):
    before, after = term(points, labels, kind), term(3 * points, labels, kind)
    shift = -torch.tensor(3.0).log() if "aedp" in kind else 0.0
    assert float(after - before) == pytest.approx(float(shift), abs=1e-4)


@pytest.mark.parametrize("kind", FIGURES)
def test_descent_moves_items_apart_or_together(points, labels, kind):
    for direction, sign in (("increase", 1), ("decrease", -1)):
        x = points.clone().requires_grad_()
        before = distances(points, labels)[3, 4]
        (gradient,) = torch.autograd.grad(term(x, labels, kind, direction), x)
        after = distances(points - 0.1 * gradient / gradient.norm(), labels)[3, 4]
        assert sign * float(after - before) > 0


def test_transport_is_zero_at_its_target_and_pulls_towards_it(points, labels):
    at_target = term(points, labels, "gromov_wasserstein", target=distances(points, labels))
    assert float(at_target) == pytest.approx(0, abs=1e-5)
    x, target = points.clone().requires_grad_(), 1.5 * distances(points, labels)
    loss = term(x, labels, "gromov_wasserstein", target=target)
    (gradient,) = torch.autograd.grad(loss, x)
    moved = term(points - 0.5 * gradient, labels, "gromov_wasserstein", target=target)
    assert float(moved) < float(loss.detach())


def test_transport_starts_from_the_last_plan(points, labels):
    plans: dict = {}
    target = distances(points, labels).roll(1, 0).roll(1, 1)
    arguments = (points, labels, "gromov_wasserstein", "increase", target, plans)
    first = term(*arguments)
    assert set(plans) == {(0, 1, 2), (3, 4)}
    assert float(term(*arguments)) <= float(first) + 1e-9


def test_concepts_with_fewer_than_two_items_take_no_part(points, labels):
    only_first = torch.where(labels >= 3, -1, labels)
    d = distances(points, labels)
    expected = ((d[0, 1] + d[0, 2] + d[1, 2]) / 3).log()
    assert float(-term(points, only_first)) == pytest.approx(float(expected), 1e-5)
    x = points.clone().requires_grad_()
    nothing = term(x, torch.full_like(labels, -1))
    assert float(nothing.detach()) == 0
    (gradient,) = torch.autograd.grad(nothing, x)
    assert (gradient == 0).all()


def test_shrinking_all_latents_is_no_way_to_lower_the_fisher_term(points, labels):
    a, b = (term(x, labels, "fisher") for x in (points, 0.01 * points))
    assert float(a) == pytest.approx(float(b), abs=1e-3)


def test_transport_needs_a_target(points, labels):
    with pytest.raises(ValueError, match="target_distances"):
        term(points, labels, "gromov_wasserstein")


@pytest.mark.parametrize("kind", FIGURES)
def test_sparse_latents_give_the_term_and_gradient_of_dense_ones(kind):
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(40, 4, generator=generator)
    indices = torch.rand(40, 9, generator=generator).topk(4).indices
    labels = torch.arange(40) % 5
    gradients = []
    for make in (lambda z: SparseLatents(z, indices, 9), lambda z: dense(z, indices)):
        z = values.clone().requires_grad_()
        moments = reduced_moments(make(z), labels, 5)
        separability_term(moments, CONCEPTS, kind, "increase").backward()
        gradients.append(z.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert float(gradients[0].abs().max()) > 0


def dense(values, indices):
    return torch.zeros(len(values), 9).scatter(1, indices, values)


def test_two_items_have_a_shape_to_transport(points, labels):
    """Of two items GW is half the squared difference of the two distances, here over its target."""
    chosen = labels >= 3
    d = distances(points, labels)
    target = torch.zeros(5, 5)
    target[3, 4] = target[4, 3] = 2 * d[3, 4]
    found = term(points[chosen], labels[chosen], "gromov_wasserstein", target=target)
    assert float(found) == pytest.approx(0.25, rel=1e-4)
