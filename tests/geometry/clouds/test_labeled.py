"""Clouds with items: centroids of what is found, and what other items share."""

import torch

from saerepgeo.geometry import LabeledCloud, cluster


def test_centers_of_clusters_are_their_means() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = 20 * torch.arange(3.0).repeat_interleave(15)[:, None]
    points = groups + torch.randn(45, 2, generator=generator)
    labels = cluster(points, 10)
    cloud = LabeledCloud(points, is_turned=False)
    expected = torch.stack([points[labels == k].double().mean(0) for k in range(3)])
    distances = torch.cdist(cloud.cluster_centers(10), cloud.cluster_centers(10))
    torch.testing.assert_close(distances, torch.cdist(expected, expected))
    assert cloud.cluster_centers(10) is cloud.cluster_centers(10)


def test_no_clusters_have_no_centers() -> None:
    assert len(LabeledCloud(torch.linspace(0, 1, 5)[:, None]).cluster_centers(10)) == 0


def test_other_items_share_what_is_found_of_the_points() -> None:
    points, labels = torch.arange(12.0)[:, None] ** 1.5, torch.arange(12) % 3
    cloud = LabeledCloud(points, labels)
    cloud.search(100)
    other = cloud.relabeled(labels.roll(1))
    assert other.cloud is cloud.cloud
    assert cloud.cloud.found is not None
    assert cloud.cloud.found.distances.shape == (12, 11)
    assert not torch.equal(other.item_centers, cloud.item_centers)
    assert torch.equal(other.named, labels)
