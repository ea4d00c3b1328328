"""Rank: planted answers, NumPy and SciPy as oracles, invariances, degenerate matrices."""

import math
from inspect import unwrap

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from torch import Tensor

from saerepgeo.geometry import (
    bures_wasserstein,
    effective_rank,
    multilinear_rank,
    numerical_rank,
    participation_ratio,
    singular_values,
    spsd_distance,
    stable_rank,
    unfold,
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


def test_unfolding_of_every_mode_matches_its_definition() -> None:
    tensor = normal(2, 3, 4)
    assert torch.equal(unfold(tensor, 0), tensor.reshape(2, 12))
    assert torch.equal(unfold(tensor, 1), torch.stack([tensor[:, j].flatten() for j in range(3)]))
    assert torch.equal(
        unfold(tensor, -1), torch.stack([tensor[..., k].flatten() for k in range(4)])
    )
    assert unfold(torch.zeros(0, 3, 2), 1).shape == (3, 0)
    with pytest.raises(ValueError, match="axes"):
        unfold(tensor, 3)


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


def test_multilinear_rank_of_a_tucker_tensor() -> None:
    core = normal(2, 3, 4)
    factors = [normal(n, r, seed=r) for n, r in ((6, 2), (7, 3), (8, 4))]
    tensor = torch.einsum("abc,ia,jb,kc->ijk", core, *factors)
    assert [int(r) for r in multilinear_rank(tensor)] == [2, 3, 4]
    assert [int(r) for r in multilinear_rank(torch.zeros(0, 3))] == [0, 0]


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


@pytest.mark.parametrize("rank", [1, 3])
def test_spsd_distance_of_a_scaled_matrix(rank: int) -> None:
    a = normal(8, rank)
    # 4 G has the factor 2 A
    assert float(spsd_distance(a, 2 * a)) == pytest.approx(math.sqrt(rank) * math.log(4), rel=1e-12)
    assert float(spsd_distance(a, a)) == pytest.approx(0, abs=1e-7)


def test_spsd_distance_of_turned_planes_is_the_principal_angle() -> None:
    for angle in (1e-9, 0.3, math.pi / 2):
        a = torch.eye(3, 1, dtype=F64)
        b = torch.tensor([[math.cos(angle)], [math.sin(angle)], [0.0]], dtype=F64)
        assert float(spsd_distance(a, b)) == pytest.approx(angle, rel=1e-12)


def test_spsd_distance_matches_its_definition_in_scipy() -> None:
    a, b = normal(9, 3), normal(9, 3, seed=1)
    gram_a, gram_b = (a @ a.T).numpy(), (b @ b.T).numpy()
    basis_a, basis_b = scipy.linalg.orth(a.numpy()), scipy.linalg.orth(b.numpy())
    left, cosines, right = np.linalg.svd(basis_a.T @ basis_b)
    y_a, y_b = basis_a @ left, basis_b @ right.T
    r_a, r_b = y_a.T @ gram_a @ y_a, y_b.T @ gram_b @ y_b
    eigenvalues = scipy.linalg.eigh(r_b, r_a, eigvals_only=True)
    expected = np.arccos(cosines) ** 2 @ np.ones(3) + 0.7 * (np.log(eigenvalues) ** 2).sum()
    assert float(spsd_distance(a, b, weight=0.7)) ** 2 == pytest.approx(expected, rel=1e-9)


@few
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_spsd_distance_is_an_invariant_metric_of_the_matrices(seed: int, scale: float) -> None:
    a, b = normal(7, 2, seed=seed), normal(7, 2, seed=seed + 1)
    turn, change = rotation(7, seed), rotation(2, seed)
    expected = float(spsd_distance(a, b))
    assert float(spsd_distance(b, a)) == pytest.approx(expected, rel=1e-7)
    assert float(spsd_distance(scale * turn @ a @ change, scale * turn @ b)) == pytest.approx(
        expected, rel=1e-7
    )


def test_spsd_distance_across_ranks_is_undefined() -> None:
    estimate = spsd_distance(normal(6, 2), normal(6, 3))
    assert math.isnan(estimate)
    assert "ranks 2 and 3 differ" in str(estimate.reason)
    doubled = normal(6, 2).repeat(1, 2)
    assert float(spsd_distance(doubled, math.sqrt(2) * normal(6, 2))) == pytest.approx(0, abs=1e-6)
    assert "zero" in str(spsd_distance(torch.zeros(6, 2), torch.zeros(6, 0)).reason)
    with pytest.raises(ValueError, match="equally many rows"):
        unwrap(spsd_distance)(normal(6, 2), normal(5, 2))


def test_bures_wasserstein_matches_matrix_square_roots() -> None:
    a, b = normal(5, 2), normal(5, 7, seed=1)
    gram_a, gram_b = (a @ a.T).numpy(), (b @ b.T).numpy()
    root = scipy.linalg.sqrtm(gram_b).real
    cross = np.linalg.eigvalsh(root @ gram_a @ root).clip(0) ** 0.5
    expected = math.sqrt(gram_a.trace() + gram_b.trace() - 2 * cross.sum())
    assert float(bures_wasserstein(a, b)) == pytest.approx(expected, rel=1e-6)
    assert float(bures_wasserstein(b, a)) == pytest.approx(expected, rel=1e-6)
    # commuting diagonal matrices: Euclidean distance of the roots
    x, y = torch.tensor([1.0, 2.0, 0.0]).diag(), torch.tensor([4.0, 2.0, 3.0]).diag()
    assert float(bures_wasserstein(x, y)) == pytest.approx(math.sqrt(18), rel=1e-12)
    assert float(bures_wasserstein(a, a @ rotation(2, 3))) == pytest.approx(0, abs=1e-13)
    assert float(bures_wasserstein(torch.zeros(4, 0), torch.zeros(4, 0))) == 0
