"""Clusters: scikit-learn and brute force as oracles, invariances, degenerate clouds."""

import itertools
import math
from inspect import unwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.cluster import HDBSCAN
from torch import Tensor

from saerepgeo.geometry import cluster, match_clusters

F64 = torch.float64


def blobs(counts: tuple[int, ...] = (30, 20, 12), dim: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centers = 40 * torch.randn(len(counts), dim, generator=generator, dtype=F64)
    noise = torch.randn(sum(counts), dim, generator=generator, dtype=F64)
    return centers.repeat_interleave(torch.tensor(counts), 0) + noise


def test_blobs_are_found() -> None:
    labels = cluster(blobs(), 5)
    truth = torch.arange(3).repeat_interleave(torch.tensor([30, 20, 12]))
    matching = match_clusters(labels, truth)
    assert len(matching.pairs) == 3
    assert float(matching.unmatched_mass) < 0.1


def test_labels_are_those_of_scikit_learn() -> None:
    points = blobs(dim=2)
    for arguments in ({"min_cluster_size": 5}, {"min_cluster_size": 8, "min_samples": 3}):
        expected = HDBSCAN(copy=True, **arguments).fit_predict(points.numpy())
        assert cluster(points, **arguments).tolist() == expected.tolist()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
def test_rigid_motion_and_scale_change_nothing(seed: int, scale: float, offset: float) -> None:
    points = blobs(seed=seed)
    turn = torch.from_numpy(ortho_group.rvs(4, random_state=seed))
    moved = match_clusters(cluster(points), cluster(scale * points @ turn + offset))
    assert float(moved.unmatched_mass) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "points",
    [
        torch.zeros(0, 3),
        torch.zeros(1, 3),
        torch.ones(50, 3),
        torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        torch.zeros(20, 0),
    ],
    ids=["empty", "one", "equal", "few", "no dimension"],
)
def test_no_cluster_to_see_gives_noise(points: Tensor) -> None:
    assert cluster(points, 5).tolist() == [-1] * len(points)


def test_duplicates_form_clusters() -> None:
    points = torch.cat([torch.zeros(10, 2), torch.ones(10, 2)])
    labels = cluster(points, 5)
    assert labels.unique().tolist() == [0, 1]
    assert len(labels[:10].unique()) == len(labels[10:].unique()) == 1


@pytest.mark.parametrize(
    ("points", "size", "message"),
    [
        (torch.full((9, 2), math.nan), 5, "finite"),
        (torch.ones(9, 2, dtype=torch.long), 5, "floating"),
        (torch.ones(9), 5, "matrix"),
        (torch.ones(9, 2), 1, "`min_cluster_size`"),
    ],
)
def test_cluster_refuses(points: Tensor, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unwrap(cluster)(points, size)


def test_matching_beats_every_other_one() -> None:
    generator = torch.Generator().manual_seed(3)
    a = torch.randint(-1, 4, (200,), generator=generator)
    b = torch.where(torch.rand(200, generator=generator) < 0.4, (a + 1) % 4, a)
    matching = match_clusters(a, b)
    best = max(
        sum(int(((a == i) & (b == j)).sum()) for i, j in enumerate(order))
        for order in itertools.permutations(range(4))
    )
    assert int(matching.overlaps.sum()) == best
    for (i, j), overlap in zip(matching.pairs.tolist(), matching.overlaps.tolist(), strict=True):
        assert int(((a == i) & (b == j)).sum()) == overlap
    in_any = int(((a >= 0) | (b >= 0)).sum())
    assert float(matching.unmatched_mass) == pytest.approx(1 - best / in_any)
    assert matching.unmatched_mass.n_dropped == 200 - in_any


def test_renamed_clusters_match_wholly() -> None:
    labels = cluster(blobs(), 5)
    renamed = torch.where(labels >= 0, 9 - labels, -1)
    assert float(match_clusters(labels, renamed).unmatched_mass) == 0


def test_clusters_that_share_no_point_are_no_pair() -> None:
    a, b = torch.tensor([0, 0, 0, 1, -1]), torch.tensor([0, 0, 1, 0, 1])
    matching = match_clusters(a, b)  # 0–0 shares two points; 1–1 would share none
    assert matching.pairs.tolist() == [[0, 0]]
    assert float(matching.unmatched_mass) == pytest.approx(0.6)


def test_a_split_cluster_leaves_half_of_it() -> None:
    whole, split = torch.zeros(8, dtype=torch.long), torch.tensor([0] * 4 + [1] * 4)
    matching = match_clusters(whole, split)
    assert matching.pairs.shape == (1, 2)
    assert float(matching.unmatched_mass) == 0.5


@pytest.mark.parametrize("n", [0, 5])
def test_noise_alone_matches_nothing(n: int) -> None:
    noise = torch.full((n,), -1)
    matching = match_clusters(noise, noise)
    assert matching.pairs.shape == (0, 2)
    assert math.isnan(matching.unmatched_mass)
    assert "no point" in str(matching.unmatched_mass.reason)


def test_clusters_against_noise_are_unmatched() -> None:
    mass = match_clusters(torch.zeros(5, dtype=torch.long), torch.full((5,), -1)).unmatched_mass
    assert float(mass) == 1


def test_matching_refuses() -> None:
    with pytest.raises(ValueError, match="same points"):
        unwrap(match_clusters)(torch.zeros(3).long(), torch.zeros(4).long())
    with pytest.raises(ValueError, match="integers"):
        unwrap(match_clusters)(torch.zeros(3), torch.zeros(3))
