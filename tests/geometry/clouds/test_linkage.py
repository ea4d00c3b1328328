"""Single linkage by matrix and by rows: the minimum spanning tree, its components, HDBSCAN."""

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN

from saerepgeo.geometry import (
    average_geodesic_distance,
    betti_0,
    cluster,
    match_clusters,
    minimum_spanning_tree,
    mst_weight,
    nearest_neighbors,
)
from saerepgeo.geometry.clouds.conversion import as_cloud
from saerepgeo.geometry.clouds.dense import DenseCloud
from saerepgeo.geometry.clouds.linkage import single_linkage
from saerepgeo.geometry.clouds.matrix import MatrixCloud
from saerepgeo.geometry.clouds.sparse import SparseCloud
from saerepgeo.types import SparseLatents


def latents(n_points: int = 300, d_sae: int = 400, k: int = 8) -> SparseLatents:
    """Five groups that share favourite latents, and stragglers."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(n_points, d_sae, generator=generator)
    for group in range(5):
        members = slice(55 * group, 55 * group + 50)
        weight[members, 20 * group : 20 * group + 12] += 0.6
    values = 1 + torch.rand(n_points, k, generator=generator)
    return SparseLatents(values, weight.topk(k).indices, d_sae)


def clouds() -> list:
    sparse = latents()
    dense = sparse.to_dense().double()
    found = [as_cloud(sparse), DenseCloud(dense - dense.mean(0)), MatrixCloud.of_points(dense)]
    assert isinstance(found[0], SparseCloud)
    return found


@pytest.mark.parametrize("number", range(3))
def test_heights_are_those_of_the_spanning_tree(number):
    cloud = clouds()[number]
    expected = minimum_spanning_tree(latents().to_dense().double()).lengths.sort().values
    tree = single_linkage(cloud)
    lengths = minimum_spanning_tree(cloud).lengths.sort().values
    torch.testing.assert_close(lengths, expected, rtol=1e-6, atol=0)
    assert float(mst_weight(cloud)) == pytest.approx(float(expected.sum()), rel=1e-7)
    assert tree.heights == pytest.approx(expected.numpy(), rel=1e-6)
    for radius in (0.0, *expected[[10, 150, -2]].tolist()):
        radius *= 1 + 1e-6  # between two heights
        assert float(betti_0(cloud, radius)) == 1 + int((expected > radius).sum())
    assert sorted(set(tree.edges.ravel())) == list(range(300))


@pytest.mark.parametrize("number", range(3))
def test_clusters_are_hdbscans_up_to_their_numbers(number):
    dense = latents().to_dense().double()
    expected = HDBSCAN(min_cluster_size=10, copy=True).fit_predict(dense.numpy())
    got = cluster(clouds()[number], 10).numpy()
    assert expected.max() == 4
    matching = match_clusters(torch.from_numpy(expected), torch.from_numpy(got))
    n_noise = int(((expected < 0) & (got < 0)).sum())
    # ties at one height may move single points
    agreeing = int(matching.overlaps.sum()) + n_noise
    assert got.max() == 4
    assert agreeing >= 0.98 * len(got)


def test_equal_points_are_joined_at_height_0():
    points = torch.cat([torch.zeros(6, 12), torch.ones(6, 12), torch.full((6, 12), 9.0)])
    cloud = MatrixCloud.of_points(points.double())
    assert (single_linkage(cloud).heights[:15] == 0).all()
    assert float(betti_0(cloud, 0.0)) == 3
    assert cluster(cloud, 3).max() == 2


def test_a_part_of_a_matrix_knows_the_neighbors_of_its_points():
    dense = latents().to_dense().double()
    rows = torch.arange(0, 300, 3)
    part = nearest_neighbors(MatrixCloud.of_points(dense).take(rows), 4)
    expected = nearest_neighbors(dense[rows], 4)
    torch.testing.assert_close(part.distances, expected.distances)
    fewer = nearest_neighbors(MatrixCloud.of_points(dense), 2)
    assert torch.equal(
        fewer.distances, nearest_neighbors(MatrixCloud.of_points(dense), 9).distances[:, :2]
    )


def test_paths_from_some_points_stand_for_all():
    cloud = clouds()[2]
    whole = average_geodesic_distance(cloud, 8)
    everyone = average_geodesic_distance(cloud, 8, torch.arange(300))
    assert float(everyone) == pytest.approx(float(whole), rel=1e-12)
    means = [
        float(average_geodesic_distance(cloud, 8, torch.arange(start, 300, 10)))
        for start in range(10)
    ]
    assert np.mean(means) == pytest.approx(float(whole), rel=1e-3)
    assert np.std(means) > 0
