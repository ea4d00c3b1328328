"""Distances at once: SciPy as oracle, coincident points, rotations."""

import torch

from saerepgeo.geometry.clouds.pairwise import rotated


def test_rotation_into_as_many_dimensions_as_points_keeps_distances() -> None:
    points = torch.randn(20, 300, generator=torch.Generator().manual_seed(0)) + 50
    turned = rotated(points)
    assert turned.shape[1] <= 20
    torch.testing.assert_close(torch.cdist(turned, turned), torch.cdist(*2 * [points.double()]))
