"""Figures of many groups at once against those of one group after the other."""

import pytest
import torch
from torch import Tensor

from saerepgeo.geometry import (
    average_pairwise_distance,
    centroids,
    class_moments,
    debiased_aedp,
    debiased_fisher_ratio,
    fisher_ratio,
    gromov_wasserstein,
    pairwise_distances,
)
from saerepgeo.geometry.debiased_separation import (
    group_debiased_aedp,
    group_debiased_fisher_ratios,
)
from saerepgeo.geometry.grouped import (
    group_aedp,
    group_classes,
    group_distances,
    group_fisher_ratios,
    grouped,
)
from saerepgeo.geometry.separation import ClassMoments, unchecked_moments
from saerepgeo.geometry.transport import distortion

GROUPS = [range(0, 3), range(3, 8), range(8, 10), range(10, 12)]
PARTS = (0, 3), (6, 10)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3, 3, 5, 5, 7, 8, 8, -1])
"""Two items of the second group have no points, one of the third has any, the last has none."""


def points() -> Tensor:
    return torch.randn(len(LABELS), 6, generator=torch.Generator().manual_seed(0)).double()


def by_group(x: Tensor) -> ClassMoments:
    moments = unchecked_moments(x, LABELS, 12, x.dtype)
    return grouped(moments, group_classes(GROUPS, x.device))


@pytest.mark.parametrize(
    ("of_groups", "of_one"),
    [
        (group_aedp, lambda moments: average_pairwise_distance(centroids(moments))),
        (group_fisher_ratios, fisher_ratio),
        (group_debiased_aedp, debiased_aedp),
        (group_debiased_fisher_ratios, debiased_fisher_ratio),
    ],
)
def test_a_group_has_the_figure_it_has_alone(of_groups, of_one):
    x = points() + 3 * LABELS[:, None]
    values, is_defined = of_groups(by_group(x))
    expected = [of_one(class_moments(x, LABELS, 12).select(group)) for group in GROUPS]
    assert is_defined.tolist() == [e.reason is None for e in expected] == [True, True, False, False]
    for value, estimate in zip(values[:2], expected, strict=False):
        torch.testing.assert_close(value, estimate.value, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "figure",
    [group_aedp, group_fisher_ratios, group_debiased_aedp, group_debiased_fisher_ratios],
)
def test_gradients_are_those_of_the_formula_and_finite_where_points_coincide(figure):
    def value(x: Tensor) -> Tensor:
        return figure(by_group(x)).values[:2]

    x = points() + 3 * LABELS[:, None]
    assert torch.autograd.gradcheck(value, (x.clone().requires_grad_(),))
    x[LABELS == 1] = x[LABELS == 0]  # two items, one centroid
    x[LABELS >= 8] = 0.0
    (gradient,) = torch.autograd.grad(value(x.requires_grad_()).sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_distances_of_a_group_are_zero_where_a_class_has_no_points():
    x = points()
    distances, moments = group_distances(by_group(x)), class_moments(x, LABELS, 12)
    present = [0, 2, 4]  # of the second group
    found = distances[1][present][:, present]
    expected = pairwise_distances(centroids(moments.select(GROUPS[1])))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert float(distances[1].sum()) == pytest.approx(float(found.sum()))
    assert not distances[3].any()


def test_the_distortion_of_a_stack_of_plans_is_that_of_each():
    first, second = (
        torch.stack([pairwise_distances(points()[i : i + 4]) for i in r]) for r in PARTS
    )
    found = [gromov_wasserstein(*pair) for pair in zip(first, second, strict=True)]
    values = distortion(first, second, torch.stack([coupling.plan for coupling in found]))
    torch.testing.assert_close(values, torch.stack([coupling.value for coupling in found]))
