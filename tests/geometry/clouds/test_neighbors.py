"""Nearest neighbors: scikit-learn as oracle, duplicates, offsets, scales, sparse forms."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from saerepgeo.geometry import (
    nearest_neighbors,
)
from saerepgeo.geometry.clouds.conversion import as_cloud
from saerepgeo.geometry.clouds.dense import DenseCloud
from saerepgeo.geometry.clouds.sparse import SparseCloud
from saerepgeo.types import SparseLatents

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=generator(seed), dtype=F64)


def latents(n: int, d_sae: int = 600, k: int = 8, seed: int = 0) -> SparseLatents:
    indices = torch.rand(n, d_sae, generator=generator(seed)).topk(k).indices
    return SparseLatents(torch.rand(n, k, generator=generator(seed + 1)), indices, d_sae)


def oracle(points: Tensor, k: int) -> np.ndarray:
    model = NearestNeighbors(n_neighbors=k + 1, algorithm="ball_tree").fit(points.double().numpy())
    return model.kneighbors(points.double().numpy())[0][:, 1:]


@pytest.mark.parametrize(("n", "dim"), [(2, 1), (60, 2), (300, 9), (300, 40), (150, 700)])
def test_neighbors_match_scikit_learn(n: int, dim: int) -> None:
    points = normal(n, dim)
    k = min(5, n - 1)
    found = nearest_neighbors(points, k)
    np.testing.assert_allclose(found.distances, oracle(points, k), rtol=1e-12)
    direct = (points[found.indices] - points[:, None]).norm(dim=2)
    torch.testing.assert_close(found.distances, direct, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dim", [2, 40])
def test_neighbors_far_from_the_origin_and_nearly_equal(dim: int) -> None:
    # differences are exact here, Gram distances in float32 and float64 are not
    lattice = torch.randint(-64, 64, (300, dim), generator=generator()).double() / 2**24
    points = lattice + 2.0**20
    found = nearest_neighbors(points, 3)
    np.testing.assert_allclose(found.distances, oracle(lattice, 3), rtol=1e-12)
    half = torch.cat([points[:150], -points[:150]])  # two distant clumps: centering does not help
    expected = np.concatenate([oracle(lattice[:150], 3)] * 2)
    np.testing.assert_allclose(nearest_neighbors(half, 3).distances, expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_neighbors_neither_under_nor_overflow(scale: float) -> None:
    for points in (normal(60, 3), normal(60, 30)):
        np.testing.assert_allclose(
            nearest_neighbors(points * scale, 2).distances / scale, oracle(points, 2), rtol=1e-9
        )


def test_duplicates_are_neighbors_at_distance_zero() -> None:
    for dim in (2, 40):
        points = normal(30, dim).repeat(6, 1)
        found = nearest_neighbors(points, 3)
        assert float(found.distances.max()) == 0
        assert not bool((found.indices == torch.arange(180)[:, None]).any())
        assert torch.equal(points[found.indices[:, 1]], points)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("n", [5, 40, 400])
def test_sparse_neighbors_are_the_dense_ones(n: int) -> None:
    points = latents(n)
    k = min(3, n - 1)
    expected = nearest_neighbors(DenseCloud(points.to_dense().double()), k).distances
    forms = [
        points,
        points.to_dense(),
        points.to_dense().to_sparse_csr(),
        points.to_dense().to_sparse(),
    ]
    for form in forms:
        assert isinstance(as_cloud(form), SparseCloud)
        torch.testing.assert_close(
            nearest_neighbors(as_cloud(form), k).distances, expected, rtol=1e-12, atol=0
        )


def test_sparse_neighbors_among_points_without_shared_entries() -> None:
    # one entry each, all at another place: the nearest point is the one of the smallest norm
    values = torch.linspace(1, 2, 100)[:, None]
    points = SparseLatents(values, torch.arange(100)[:, None], 100)
    found = nearest_neighbors(points, 1)
    assert found.indices.flatten().tolist() == [1] + [0] * 99
    zeros = SparseLatents(torch.zeros(50, 2), torch.zeros(50, 2).long(), 300)
    assert float(nearest_neighbors(zeros, 4).distances.max()) == 0


def test_small_points_on_the_far_side_do_not_hide_the_nearest() -> None:
    # one point far out, 20 small ones opposite to it on its own axis, 20 larger ones on others
    opposite, aside = -torch.linspace(0.1, 0.2, 20), torch.full((20,), 0.3)
    values = torch.cat([torch.tensor([10.0]), opposite, aside])[:, None]
    indices = torch.cat([torch.zeros(21), torch.arange(1, 21)]).long()[:, None]
    points = SparseLatents(values, indices, 200)
    found = nearest_neighbors(points, 1)
    np.testing.assert_allclose(found.distances, oracle(points.to_dense(), 1), rtol=1e-12)
    assert int(found.indices[0]) > 20


def test_points_of_one_entry_are_told_apart_below_the_rounding_of_float32() -> None:
    values = 1 + 1e-9 * torch.arange(100, dtype=F64)[torch.randperm(100, generator=generator())]
    points = SparseLatents(values[:, None], torch.zeros(100, 1).long(), 200)
    found = nearest_neighbors(points, 1)
    np.testing.assert_allclose(found.distances, torch.full((100, 1), 1e-9), rtol=1e-6)


def test_an_index_given_twice_adds_up() -> None:
    points = SparseLatents(torch.ones(3, 2), torch.tensor([[0, 0], [0, 1], [2, 2]]), 200)
    expected = oracle(points.to_dense(), 2)
    np.testing.assert_allclose(nearest_neighbors(points, 2).distances, expected)


def test_neighbors_refuse() -> None:
    for k in (0, 3):
        with pytest.raises(ValueError, match="`n_neighbors`"):
            nearest_neighbors(torch.zeros(3, 2), k)
