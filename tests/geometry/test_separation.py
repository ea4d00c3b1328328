"""Separation against closed forms, scikit-learn and NumPy; invariances; gradients; bad input."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import calinski_harabasz_score, silhouette_score

from saerepgeo.geometry import (
    average_pairwise_distance,
    centroids,
    class_moments,
    fisher_ratio,
    pairwise_distances,
    relative_aedp,
    scale_free_mstw,
    silhouette,
    within_scatter,
)
from saerepgeo.types import SparseLatents

N_CLASSES = 4


def _sample(seed, n=40, dim=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % N_CLASSES
    centers = 2 * torch.randn(N_CLASSES, dim, generator=generator, dtype=dtype)
    return centers[labels] + torch.randn(n, dim, generator=generator, dtype=dtype), labels


def _figures(points, labels):
    moments = class_moments(points, labels, N_CLASSES)
    return torch.stack(
        [
            average_pairwise_distance(centroids(moments)).value,
            relative_aedp(moments).value,
            fisher_ratio(moments).value,
            silhouette(points, labels).value,
            scale_free_mstw(centroids(moments)).value,
        ]
    )


def test_known_answers():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 4.0], [6.0, 4.0]])
    moments = class_moments(points, torch.tensor([0, 0, 1, 1]), 2)
    assert centroids(moments).tolist() == [[1.0, 0.0], [5.0, 4.0]]
    aedp = average_pairwise_distance(centroids(moments))
    assert float(aedp) == pytest.approx(np.sqrt(32))
    assert (aedp.n_used, aedp.n_dropped) == (2, 0)
    assert float(within_scatter(moments)) == pytest.approx(4.0)  # four points at distance 1
    assert float(relative_aedp(moments)) == pytest.approx(np.sqrt(32) / np.sqrt(4 / 2))
    assert float(fisher_ratio(moments)) == pytest.approx(4 * 8 / 4)


def test_parity_with_scikit_learn_and_numpy():
    points, labels = _sample(0)
    aedp, relative, fisher, coefficient, tree = _figures(points, labels).tolist()
    x, y = points.numpy(), labels.numpy()
    means = np.stack([x[y == k].mean(0) for k in range(N_CLASSES)])
    gaps = np.linalg.norm(means[:, None] - means, axis=-1)[np.triu_indices(N_CLASSES, 1)]
    pooled = sum(((x[y == k] - means[k]) ** 2).sum() for k in range(N_CLASSES)) / (40 - N_CLASSES)
    assert aedp == pytest.approx(gaps.mean(), rel=1e-12)
    assert relative == pytest.approx(gaps.mean() / np.sqrt(pooled), rel=1e-12)
    weight = minimum_spanning_tree(squareform(pdist(means))).sum()
    assert tree == pytest.approx(weight / (N_CLASSES - 1) / gaps.mean(), rel=1e-12)
    # Calinski–Harabasz is the Fisher ratio per degree of freedom
    by_freedom = (40 - N_CLASSES) / (N_CLASSES - 1)
    assert fisher * by_freedom == pytest.approx(calinski_harabasz_score(x, y), rel=1e-12)
    assert coefficient == pytest.approx(silhouette_score(x, y), rel=1e-10)


@pytest.mark.parametrize("block", [1, 64, 10**6])
def test_silhouette_of_any_block_size_equals_scikit_learn(block, monkeypatch):
    monkeypatch.setattr("saerepgeo.geometry.silhouettes.BLOCK_ENTRIES", block)
    points, labels = _sample(1, n=50)
    labels[:1] = 9  # a class of one point has silhouette 0
    expected = silhouette_score(points.numpy() + 1e4, labels.numpy())
    assert float(silhouette(points + 1e4, labels)) == pytest.approx(expected, rel=1e-7)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_invariances(seed, scale, offset):
    points, labels = _sample(seed)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator).double()).Q
    order = torch.randperm(40, generator=generator)
    rename = torch.randperm(N_CLASSES, generator=generator)
    moved = scale * (points @ rotation + offset)
    expected = _figures(points, labels)
    expected[0] *= scale  # AEDP alone has units
    got = _figures(moved[order], rename[labels[order]])
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 40))
def test_moments_of_two_batches_add_up(seed, cut):
    points, labels = _sample(seed)
    whole = class_moments(points, labels, N_CLASSES)
    parts = class_moments(points[:cut], labels[:cut], N_CLASSES) + class_moments(
        points[cut:], labels[cut:], N_CLASSES
    )
    for got, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_float32_moments_of_centered_points():
    points, labels = _sample(0)
    moments = class_moments(points.float(), labels, N_CLASSES, dtype=torch.float32)
    assert moments.sums.dtype == torch.float32
    assert float(fisher_ratio(moments)) == pytest.approx(
        float(_figures(points, labels)[2]), rel=1e-5
    )


def test_bfloat16_points_are_accumulated_in_float64():
    points, labels = _sample(0)
    rounded = points.bfloat16()
    assert torch.equal(_figures(rounded, labels), _figures(rounded.double(), labels))


def test_sparse_latents_equal_dense_ones():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(30, 3, generator=generator)
    indices = torch.stack([torch.randperm(20, generator=generator)[:3] for _ in range(30)])
    sparse, labels = SparseLatents(values, indices, 20), torch.arange(30) % 5 - 1
    for got, expected in zip(
        class_moments(sparse, labels, 4), class_moments(sparse.to_dense(), labels, 4), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_background_is_ignored_and_empty_classes_are_counted():
    points, labels = _sample(0)
    background = torch.full_like(points, float("nan"))  # not even looked at
    everything = torch.cat([points, background])
    all_labels = torch.cat([labels, torch.full((40,), -1)])
    moments = class_moments(everything, all_labels, N_CLASSES + 3)
    figure = fisher_ratio(moments)
    assert float(figure) == pytest.approx(float(_figures(points, labels)[2]), rel=1e-14)
    assert (figure.n_used, figure.n_dropped) == (N_CLASSES, 3)
    assert silhouette(everything, all_labels).n_dropped == 40


def test_select_takes_the_classes_of_one_concept():
    points, labels = _sample(0)
    keep = (labels == 1) | (labels == 3)
    chosen = class_moments(points, labels, N_CLASSES).select([1, 3])
    alone = class_moments(points[keep], labels[keep] // 2, 2)
    assert float(fisher_ratio(chosen)) == pytest.approx(float(fisher_ratio(alone)), rel=1e-12)


@pytest.mark.parametrize("index", range(5))
def test_gradcheck(index):
    points, labels = _sample(0, n=12, dim=3)
    assert torch.autograd.gradcheck(
        lambda x: _figures(x, labels)[index], (points.requires_grad_(),)
    )


def test_gradients_are_finite_where_points_coincide():
    points = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6) % 2
    aedp = average_pairwise_distance(centroids(class_moments(points, labels, 2)))
    assert float(aedp) == 0.0
    assert torch.equal(torch.autograd.grad(aedp.value, points)[0], torch.zeros(6, 3).double())
    coefficient = silhouette(points, labels)
    assert float(coefficient) == 0.0
    two = points + torch.tensor([0.0, 5.0, 0.0, 5.0, 0.0, 5.0])[:, None]
    assert torch.autograd.grad(silhouette(two, labels).value, points)[0].isfinite().all()
    assert float(silhouette(two, labels)) == pytest.approx(1.0)


def test_distances_are_exact_where_scalar_products_are_not():
    points = torch.tensor([[1e8, 0.0], [1e8, 1e-3], [1e8, 0.0]], dtype=torch.float64)
    distances = pairwise_distances(points)
    assert distances[0, 1].item() == 1e-3
    assert distances[0, 2].item() == 0.0


@pytest.mark.parametrize(
    ("points", "labels", "reason"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "got 0"),
        (torch.ones(1, 3), torch.tensor([0]), "got 1"),
        (torch.randn(5, 3), torch.zeros(5, dtype=torch.long), "got 1"),
        (torch.randn(5, 3), torch.full((5,), -1), "got 0"),
        (torch.randn(2, 3), torch.tensor([0, 1]), "no scatter"),
        (torch.full((6, 3), 0.1), torch.arange(6) % 2, "no scatter"),
        (torch.full((1000, 3), 1000.1).double(), torch.arange(1000) % 2, "no scatter"),
    ],
    ids=[
        "empty",
        "one point",
        "one class",
        "background",
        "single points",
        "all points equal",
        "equal and far",
    ],
)
def test_undefined_ratios_say_why(points, labels, reason):
    moments = class_moments(points, labels, 3)
    for figure in (relative_aedp(moments), fisher_ratio(moments)):
        assert figure.value.isnan()
        assert reason in figure.reason
        assert figure.n_used + figure.n_dropped == 3


def test_undefined_silhouette_and_aedp_say_why():
    points = torch.randn(4, 2)
    assert "2 to n−1 classes" in silhouette(points, torch.arange(4)).reason
    assert "2 to n−1 classes" in silhouette(points, torch.zeros(4, dtype=torch.long)).reason
    assert "2 to n−1 classes" in silhouette(points[:0], torch.arange(0)).reason
    assert "two or more" in average_pairwise_distance(points[:1]).reason
    assert "two or more" in average_pairwise_distance(points[:0]).reason
    assert "two or more" in scale_free_mstw(points[:1]).reason
    assert "are equal" in scale_free_mstw(torch.ones(3, 2)).reason


def test_scale_free_mstw_of_known_shapes():
    simplex = torch.eye(6)  # all equally far apart
    assert float(scale_free_mstw(simplex)) == pytest.approx(1.0, rel=1e-12)
    assert float(scale_free_mstw(torch.tensor([[0.0], [9.0]]))) == 1.0
    groups = torch.tensor([[0.0], [1e-6], [1.0], [1.0 + 1e-6]])
    assert float(scale_free_mstw(groups)) == pytest.approx(0.5, rel=1e-4)  # 1/3 over 2/3


def test_constant_columns_change_nothing():
    points, labels = _sample(0)
    padded = torch.cat([points, torch.full((40, 2), 7.0)], dim=1)
    torch.testing.assert_close(_figures(padded, labels), _figures(points, labels))


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (torch.ones(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.long), "floating point"),
        (torch.ones(3, 2), torch.zeros(3), "integers"),
        (torch.ones(3, 2), torch.tensor([0, 1, 2]), "n_classes=2"),
        (torch.ones(3, 2), torch.tensor([0, 1, -2]), "n_classes=2"),
        (torch.ones(3, 2), torch.tensor([0, 1]), "got shape"),
        (torch.tensor([[float("nan")]]), torch.tensor([0]), "finite"),
        (torch.tensor([[float("inf")]]), torch.tensor([0]), "finite"),
    ],
)
def test_refuses(points, labels, message):
    with pytest.raises(ValueError, match=message):
        unwrap(class_moments)(points, labels, 2)


def test_more_sums_than_memory_are_refused():
    points = SparseLatents(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long), 2**21)
    with pytest.raises(ValueError, match="too many"):
        class_moments(points, torch.tensor([0]), 2**9 + 1, dtype=torch.float32)


def test_silhouette_refuses():
    with pytest.raises(ValueError, match="one entry a point"):
        unwrap(silhouette)(torch.ones(3, 2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="finite"):
        silhouette(torch.full((3, 2), float("nan")), torch.tensor([0, 1, 1]))
