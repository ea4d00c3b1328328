"""Procrustes disparity and debiased CKA against SciPy, the U-statistic and known null values."""

from inspect import unwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes

from saerepgeo.geometry import debiased_cka, debiased_ckas, permutation_test, procrustes_disparity


def _points(seed, n, dim):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("n", "dim"), [(3, 50), (10, 4), (20, 20)])
def test_disparity_is_that_of_scipy(n, dim):
    a, b = _points(0, n, dim), _points(1, n, dim)
    expected = procrustes(a.numpy(), b.numpy())[2]
    assert float(procrustes_disparity(a, b)) == pytest.approx(expected, rel=1e-10)


def test_unequal_widths_are_padded_with_zeros():
    a, b = _points(0, 7, 40), _points(1, 7, 3)
    padded = torch.cat([b, torch.zeros(7, 37)], dim=1)
    expected = procrustes(a.numpy(), padded.numpy())[2]
    assert float(procrustes_disparity(a, b)) == pytest.approx(expected, rel=1e-10)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_invariances(seed, scale, offset):
    a, b = _points(seed, 8, 5), _points(seed + 1, 8, 5)
    rotation = torch.linalg.qr(_points(seed, 5, 5)).Q
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    moved = scale * (a @ rotation + offset)
    for figure in (procrustes_disparity, debiased_cka):
        expected = float(figure(a, b))
        assert float(figure(moved, b)) == pytest.approx(expected, rel=1e-7, abs=1e-9)
        assert float(figure(b, a)) == pytest.approx(expected, rel=1e-7, abs=1e-9)
        assert float(figure(a[order], b[order])) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert float(procrustes_disparity(moved, a)) == pytest.approx(0.0, abs=1e-9)
    assert float(debiased_cka(moved, a)) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(("n", "expected"), [(3, 0.016), (5, 0.040), (10, 0.095)])
def test_few_random_points_are_nearly_aligned(n, expected):
    draws = [
        float(procrustes_disparity(_points(i, n, 50), _points(-i - 1, n, 50))) for i in range(200)
    ]
    assert sum(draws) / 200 == pytest.approx(expected, abs=0.005)


def test_two_points_always_align():
    assert float(procrustes_disparity(_points(0, 2, 9), _points(1, 2, 4))) == pytest.approx(
        0.0, abs=1e-12
    )


def test_permutation_null_tells_a_match_from_chance():
    a = _points(0, 8, 50)
    pairing = torch.arange(8)

    def disparity(x, order):
        return procrustes_disparity(x[order], b)

    b = a + 0.3 * _points(1, 8, 50)
    assert permutation_test(disparity, a, pairing, n_draws=99, alternative="less").p_value == 0.01
    b = _points(2, 8, 50)
    assert permutation_test(disparity, a, pairing, n_draws=99, alternative="less").p_value > 0.05


def _unbiased_hsic(k, m):
    """The U-statistic of Song et al. (2012, eq. 5), term by term."""
    n = len(k)
    k, m = k - torch.diag(k.diag()), m - torch.diag(m.diag())
    first = torch.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2))
    return (first - 2 / (n - 2) * (k @ m).sum()) / (n * (n - 3))


@pytest.mark.parametrize("dims", [(5, 3), (300, 200), (4, 300)])
def test_cka_is_the_ratio_of_u_statistics(dims):
    x = _points(0, 20, dims[0]) + 5
    y = x[:, :3] @ _points(1, 3, dims[1]) + _points(2, 20, dims[1])
    k, m = x @ x.T, y @ y.T
    expected = _unbiased_hsic(k, m) / (_unbiased_hsic(k, k) * _unbiased_hsic(m, m)).sqrt()
    assert float(debiased_cka(x, y)) == pytest.approx(expected.item(), rel=1e-9)


def test_cka_of_independent_points_is_about_zero():
    draws = [float(debiased_cka(_points(i, 50, 300), _points(-i - 1, 50, 300))) for i in range(50)]
    assert abs(sum(draws) / 50) < 0.02


@pytest.mark.parametrize(("n", "dims"), [(5, (3, 3)), (5, (9, 7)), (6, (2, 8))])
@pytest.mark.parametrize("figure", [procrustes_disparity, debiased_cka])
def test_gradcheck(figure, n, dims):
    a, b = (_points(i, n, dim).requires_grad_() for i, dim in enumerate(dims))
    assert torch.autograd.gradcheck(lambda x, y: figure(x, y).value, (a, b))


def test_duplicates_and_constant_columns_change_nothing():
    a, b = _points(0, 6, 4), _points(1, 6, 4)
    widened = torch.cat([a, torch.full((6, 2), 1e3)], dim=1)
    for figure in (procrustes_disparity, debiased_cka):
        assert float(figure(widened, b)) == pytest.approx(float(figure(a, b)), rel=1e-9)
    twice = [x.repeat(2, 1) for x in (a, b)]
    expected = float(procrustes_disparity(a, b))
    assert float(procrustes_disparity(*twice)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("figure", [procrustes_disparity, debiased_cka])
@pytest.mark.parametrize(
    ("a", "reason"),
    [
        (torch.zeros(0, 3), "or more points, got 0"),
        (torch.ones(1, 3), "or more points, got 1"),
        (torch.full((9, 3), 0.1), "one side are equal"),
        (torch.full((9, 3), 0.1, dtype=torch.float64), "one side are equal"),
        (torch.zeros(9, 3), "one side are equal"),
        (torch.zeros(9, 0), "one side are equal"),
    ],
    ids=[
        "empty",
        "one point",
        "all points equal",
        "equal up to rounding",
        "all zero",
        "no columns",
    ],
)
def test_undefined_figures_say_why(figure, a, reason):
    for pair in ((a, torch.randn(len(a), 2)), (torch.randn(len(a), 2), a)):
        result = figure(*pair)
        assert result.value.isnan()
        assert reason in result.reason
        assert result.n_used == len(a)


@pytest.mark.parametrize("figure", [procrustes_disparity, debiased_cka])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.ones(5, 2, dtype=torch.int64), "floating point"),
        (torch.full((5, 2), float("nan")), "finite"),
        (torch.full((5, 2), float("inf")), "finite"),
        (torch.ones(4, 2), "paired rows"),
        (torch.ones(5), "matrix"),
    ],
)
def test_refuses(figure, bad, message):
    with pytest.raises(ValueError, match=message):
        unwrap(figure)(bad, torch.randn(5, 2))


@pytest.mark.parametrize("width", [3, 40], ids=["products of columns", "products of rows"])
def test_cka_in_many_orders_is_that_of_reordered_points(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, width, generator=generator, dtype=torch.float64) for _ in range(2))
    orders = [torch.randperm(20, generator=generator) for _ in range(3)]
    found = debiased_ckas(x, y, orders)
    for order, figure in zip(orders, found, strict=True):
        torch.testing.assert_close(figure.value, debiased_cka(x, y[order]).value)
    assert len({float(figure) for figure in found}) == 3
