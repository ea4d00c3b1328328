"""Separation less the noise of its centroids: what a population has, whatever the sample."""

import numpy as np
import pytest
import torch
from torch import Tensor

from saerepgeo.geometry import (
    class_moments,
    debiased_aedp,
    debiased_fisher_ratio,
    debiased_relative_aedp,
    debiased_squared_distances,
    fisher_ratio,
    relative_aedp,
)
from saerepgeo.geometry.separation import ClassMoments

N_CLASSES, DIM, SPREAD = 6, 120, 0.25
"""Centers 0.25·√(2·120) apart, about 3.9, where s = √120 within: hard to tell apart."""


def population() -> Tensor:
    return SPREAD * torch.randn(
        N_CLASSES, DIM, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )


def sample(sizes: list[int], seed: int) -> ClassMoments:
    labels = torch.arange(N_CLASSES).repeat_interleave(torch.tensor(sizes))
    noise = torch.randn(
        len(labels), DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return class_moments(population()[labels] + noise, labels, N_CLASSES)


def figures_of(figure, sizes: list[int], n: int = 200) -> np.ndarray:
    return np.array([float(figure(sample(sizes, seed))) for seed in range(n)])


def pairs_of(centers: Tensor) -> np.ndarray:
    x = centers.numpy()
    return np.array(
        [((x[k] - x[j]) ** 2).sum() for k in range(len(x)) for j in range(k + 1, len(x))]
    )


TRUE = {
    debiased_aedp: np.sqrt(pairs_of(population())).mean(),
    debiased_relative_aedp: np.sqrt(pairs_of(population())).mean() / np.sqrt(DIM),
    debiased_fisher_ratio: ((population() - population().mean(0)) ** 2).sum(1).mean() / DIM,
}
"""Of the population: unit variance in each of DIM columns."""


@pytest.mark.parametrize("figure", TRUE)
@pytest.mark.parametrize("size", [2, 4, 16, 64])
def test_one_population_has_one_figure_whatever_the_class_size(figure, size):
    found = figures_of(figure, [size] * N_CLASSES, 60 if size == 64 else 200)
    error = found.std(ddof=1) / len(found) ** 0.5
    slack = 0.0 if figure is debiased_fisher_ratio else 0.02  # a root: see its docstring
    assert abs(found.mean() - TRUE[figure]) < 4 * error + slack * TRUE[figure]


@pytest.mark.parametrize("raw", [relative_aedp, fisher_ratio])
def test_the_plain_figures_drift(raw):
    few, many = (figures_of(raw, [size] * N_CLASSES, 40).mean() for size in (2, 64))
    assert few > 1.5 * many


def test_squared_distances_are_unbiased_for_classes_of_unlike_size():
    sizes = [1, 2, 3, 8, 20, 2]
    found = torch.stack(
        [
            debiased_squared_distances(ClassMoments(*(m[None] for m in sample(sizes, seed))))[0]
            for seed in range(600)
        ]
    )
    expected = torch.cdist(population(), population()).square()
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - expected).abs() <= 4.5 * error).all()
    assert bool((found < 0).any())  # kept signed


def test_the_formula_of_a_small_cloud():
    x = torch.tensor([[0.0, 0], [2, 0], [5, 1], [7, 1], [0, 9]], dtype=torch.float64)
    moments = class_moments(x, torch.tensor([0, 0, 1, 1, 2]), 4)
    s2 = 4 / 2  # two points a class that scatter by 2 each; 5 − 3 degrees of freedom
    centers = np.array([[1, 0], [6, 1], [0, 9]])
    sizes = [2, 2, 1]
    squares = [
        ((centers[k] - centers[j]) ** 2).sum() - s2 * (1 / sizes[k] + 1 / sizes[j])
        for k, j in ((0, 1), (0, 2), (1, 2))
    ]
    plain = [((centers[k] - centers[j]) ** 2).sum() for k, j in ((0, 1), (0, 2), (1, 2))]
    aedp = np.sqrt(plain).mean() * (sum(squares) / sum(plain)) ** 0.5
    found = debiased_aedp(moments)
    assert float(found) == pytest.approx(aedp, rel=1e-12)
    assert (found.n_used, found.n_dropped) == (3, 1)
    assert float(debiased_relative_aedp(moments)) == pytest.approx(aedp / s2**0.5, rel=1e-12)
    mean = x.numpy().mean(0)
    between = sum(n * ((c - mean) ** 2).sum() for n, c in zip(sizes, centers, strict=True))
    assert float(debiased_fisher_ratio(moments)) == pytest.approx(
        (between - 2 * s2) / (5 * s2), rel=1e-12
    )


@pytest.mark.parametrize("figure", TRUE)
def test_what_is_undefined_says_why(figure):
    x = torch.randn(6, 3, dtype=torch.float64)
    one = figure(class_moments(x, torch.zeros(6, dtype=torch.long), 2))
    assert one.reason == "needs two or more classes with points, got 1"
    single = figure(class_moments(x, torch.arange(6), 6))
    assert single.reason is not None
    assert "single point" in single.reason
    coincident = figure(class_moments(x[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]), 2))
    if figure is debiased_aedp:  # nothing to take off
        assert float(coincident) == pytest.approx(float((x[0] - x[1]).norm()))
    else:
        assert coincident.reason == "no scatter within the classes (coincident points in each)"


@pytest.mark.parametrize("figure", TRUE)
def test_scale_and_place_do_not_matter(figure):
    moments, labels = sample([4] * N_CLASSES, 0), torch.arange(N_CLASSES).repeat_interleave(4)
    noise = torch.randn(24, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = class_moments(3 * (population()[labels] + noise) + 7, labels, N_CLASSES)
    scale = 3.0 if figure is debiased_aedp else 1.0
    assert float(figure(moved)) == pytest.approx(scale * float(figure(moments)), rel=1e-9)
