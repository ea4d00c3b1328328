"""Rank: planted answers, NumPy and SciPy as oracles, invariances, degenerate matrices."""

import math
from inspect import unwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from torch import Tensor

from saerepgeo.geometry import (
    effective_rank,
    numerical_rank,
    participation_ratio,
    singular_values,
    stable_rank,
)

F64 = torch.float64
SPECTRAL = (effective_rank, stable_rank, participation_ratio)
few = settings(max_examples=15, deadline=None)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def rotation(dim: int, seed: int) -> Tensor:
    return torch.from_numpy(ortho_group.rvs(dim, random_state=seed))


def planted(noise: float) -> Tensor:
    return normal(300, 20) @ normal(20, 4608, seed=1) + noise * normal(300, 4608, seed=2)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (40, 6), (6, 40), (200, 3)])
def test_singular_values_match_numpy(shape: tuple[int, int]) -> None:
    matrix = normal(*shape)
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(singular_values(matrix), expected, rtol=1e-12, atol=1e-13)
    assert singular_values(matrix.bfloat16()).dtype == F64


def test_planted_rank_survives_noise_under_gavish_donoho_only() -> None:
    clean, noisy = singular_values(planted(0.0)), singular_values(planted(0.1))
    shape = (300, 4608)
    assert numerical_rank(clean, shape).rank == 20
    assert numerical_rank(clean, shape, "gavish-donoho").rank == 20  # the floor, by eps
    assert numerical_rank(noisy, shape).rank == 300
    assert numerical_rank(noisy, shape, "gavish-donoho").rank == 20
    assert numerical_rank(noisy, shape, "gavish-donoho", noise=0.1).rank == 20
    assert numerical_rank(noisy, shape, float(noisy[6]) - 1e-9).rank == 7


def test_rank_depends_on_the_precision_of_the_data() -> None:
    sv = torch.tensor([1.0, 1e-9], dtype=F64)
    assert numerical_rank(sv, (2, 2)).rank == 2
    in_float32 = numerical_rank(sv, (2, 2), dtype=torch.float32)
    assert (in_float32.rank, in_float32.dtype) == (1, torch.float32)
    assert in_float32.threshold == 2 * torch.finfo(torch.float32).eps
    for shape in ((2, 50), (50, 2)):
        assert numerical_rank(3 * sv, shape).threshold == 3 * 50 * torch.finfo(F64).eps


@pytest.mark.parametrize("rank", [0, 1, 5, 12])
def test_eps_rank_matches_numpy(rank: int) -> None:
    matrix = normal(12, rank) @ normal(rank, 30, seed=3)
    found = numerical_rank(singular_values(matrix), (12, 30))
    assert int(found) == np.linalg.matrix_rank(matrix.numpy()) == rank


def test_gavish_donoho_constants() -> None:
    # square matrices: 4/√3 at known noise; else divided by the median m of the quarter circle law,
    # m √(4 − m²)/2 + 2 asin(m/2) = π/2. The paper's table IV, rounded: 2.8582
    ones = torch.ones(100, dtype=F64)
    known = numerical_rank(ones, (100, 100), "gavish-donoho", noise=1.0).threshold
    assert known == pytest.approx(4 / math.sqrt(3) * 10, rel=1e-14)
    unknown = numerical_rank(ones, (100, 100), "gavish-donoho").threshold
    assert unknown == pytest.approx(2.8582, abs=2e-4)
    m = 4 / math.sqrt(3) / unknown
    assert m * math.sqrt(4 - m**2) / 2 + 2 * math.asin(m / 2) == pytest.approx(math.pi / 2)


def test_gavish_donoho_median_is_that_of_noise() -> None:
    noise = normal(400, 1600)
    known = numerical_rank(singular_values(noise), (400, 1600), "gavish-donoho", noise=1.0)
    unknown = numerical_rank(singular_values(noise), (400, 1600), "gavish-donoho")
    assert unknown.threshold == pytest.approx(known.threshold, rel=0.01)
    assert int(known) == int(unknown) == 0


def test_missing_singular_values_count_as_zero() -> None:
    assert numerical_rank(torch.ones(3), (100, 100), "gavish-donoho").rank == 3  # median 0
    assert numerical_rank(torch.ones(0), (0, 7)).rank == 0
    assert numerical_rank(torch.zeros(4), (4, 7), "gavish-donoho").rank == 0


@pytest.mark.parametrize(
    ("sv", "arguments", "message"),
    [
        (torch.ones(3), {"tolerance": "best"}, "`tolerance`"),
        (torch.ones(3), {"tolerance": -1.0}, "`tolerance`"),
        (torch.ones(3), {"tolerance": math.nan}, "`tolerance`"),
        (torch.ones(3), {"tolerance": "gavish-donoho", "noise": -1.0}, "`noise`"),
        (torch.ones(5), {}, "allows 3"),
        (torch.tensor([math.nan]), {}, "finite"),
        (torch.tensor([1]), {}, "floating"),
    ],
)
def test_numerical_rank_refuses(sv: Tensor, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unwrap(numerical_rank)(sv, (3, 8), **arguments)


@pytest.mark.parametrize("bad", [torch.ones(2, 2, dtype=torch.long), torch.full((2, 2), math.inf)])
def test_singular_values_refuse(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="`matrix` must be"):
        unwrap(singular_values)(bad)


def test_soft_ranks_match_their_formulas() -> None:
    sv = torch.tensor([5.0, 3.0, 1.0, 0.0], dtype=F64)
    share = np.array([5, 3, 1]) / 9
    assert float(effective_rank(sv)) == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert float(stable_rank(sv)) == pytest.approx(35 / 25)
    assert float(participation_ratio(sv)) == pytest.approx(35**2 / (625 + 81 + 1))


@pytest.mark.parametrize("soft_rank", SPECTRAL)
def test_soft_ranks_of_nothing_are_undefined_and_never_overflow(soft_rank) -> None:
    for sv in (torch.zeros(0), torch.zeros(5)):
        estimate = soft_rank(sv)
        assert math.isnan(estimate)
        assert "none of" in estimate.reason
    for scale in (1e-180, 1e180):
        assert float(soft_rank(torch.full((7,), scale, dtype=F64))) == pytest.approx(7)
    with pytest.raises(ValueError, match="finite"):
        soft_rank(torch.tensor([math.nan]))


@pytest.mark.parametrize("soft_rank", SPECTRAL)
def test_soft_ranks_are_differentiable_down_to_the_matrix(soft_rank) -> None:
    for shape in ((4, 6), (12, 3)):
        matrix = normal(*shape).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: soft_rank(singular_values(x)).value, matrix)


@few
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_ranks_ignore_rotation_order_and_scale(seed: int, scale: float) -> None:
    matrix = normal(9, 3, seed=seed) @ normal(3, 6, seed=seed + 1)
    moved = scale * matrix[torch.randperm(9)] @ rotation(6, seed)
    sv, moved_sv = singular_values(matrix), singular_values(moved)
    assert int(numerical_rank(sv, (9, 6))) == int(numerical_rank(moved_sv, (9, 6))) == 3
    for soft_rank in SPECTRAL:
        assert float(soft_rank(sv)) == pytest.approx(float(soft_rank(moved_sv)), rel=1e-9)
        assert 1 - 1e-9 <= float(soft_rank(sv)) <= 3 + 1e-9
