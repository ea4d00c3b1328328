"""One space of a concept as the sound protocol reads it: the points, or a part of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.cases.concept_points import ConceptCloud
from saerepgeo.cases.structure.structure_statistics import (
    BY_CENTROIDS,
    free_figures,
    item_means,
    pooled_dimension,
    rotated,
)
from saerepgeo.geometry.clouds.cloud import Cloud, RowCloud
from saerepgeo.geometry.clouds.conversion import as_cloud
from saerepgeo.geometry.clouds.matrix import MatrixCloud
from saerepgeo.types import Estimate, Float, Int, SparseLatents

__all__ = ["LARGE", "Found", "Part", "Space", "figures_of"]

LARGE = 2048
"""Points from which on no distance matrix of the whole is held, and draws are of samples."""
N_SOURCES = 512
"""Points whose paths stand for all in the AGD of a large cloud."""


class Part(NamedTuple):
    """Points to take figures of."""

    cloud: Cloud
    labels: Int[Tensor, "point"]
    """Items that have been named, −1 before."""
    at_mentions: Float[Tensor, "mention dim"]
    """Coordinates of the points at the items' mentions."""
    mentioned: Int[Tensor, "mention"]
    """Items of these."""


class Found(NamedTuple):
    """What a part shows."""

    figures: dict[str, Estimate]
    clusters: Int[Tensor, "_"]
    cluster_centers: Float[Tensor, "_ _"]
    item_centers: Float[Tensor, "_ _"]
    """Of the items that are mentioned, in order."""


class Space:
    """The points of a concept in residuals or latents.

    Up to `LARGE` points: coordinates turned into as many dimensions as there are points, and all
    distances at once, of which a part of the points uses its own. More: the points as they came,
    sparse if they came so, measured block by block.

    Args:
        points: dense, or latents by their active entries; a row for each of `about`'s.
        about: prompts and items of the points.
    """

    def __init__(
        self, points: Float[Tensor, "point dim"] | SparseLatents, about: ConceptCloud
    ) -> None:
        self.about = about
        self.is_large = len(about.labels) > LARGE
        self.x: Tensor | None = None
        self.cloud: Cloud
        if self.is_large:
            self.cloud = as_cloud(points)
        else:
            dense = points.to_dense() if isinstance(points, SparseLatents) else points
            self.x = rotated(dense)
            self.cloud = MatrixCloud.of_points(self.x)

    @property
    def n_points(self) -> int:
        """Number of points."""
        return self.cloud.n_points

    def coordinates(self, rows: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        """Return points by their coordinates, in float64, up to a shift of all."""
        if self.x is not None:
            return self.x[rows]
        assert isinstance(self.cloud, RowCloud)
        return self.cloud.dense(rows).cpu() * self.cloud.scale

    def whole(self) -> Part:
        """Return all points."""
        return self._part(self.cloud, torch.arange(self.n_points))

    def part(self, rows: Int[Tensor, "row"]) -> Part:
        """Return the points `rows`, few enough for the matrix of their distances."""
        if isinstance(self.cloud, MatrixCloud):
            return self._part(self.cloud.take(rows), rows)
        return self._part(MatrixCloud.of_points(self.coordinates(rows).float()), rows)

    def _part(self, cloud: Cloud, rows: Tensor) -> Part:
        at = rows[self.about.is_mention[rows]]
        return Part(cloud, self.about.labels[rows], self.coordinates(at), self.about.labels[at])

    def centers(self, rows: Tensor, clusters: Tensor) -> Float[Tensor, "cluster dim"]:
        """Return the means of the clusters 0, 1, … of the points `rows`."""
        means = [
            torch.stack([block.sum(0) for block in map(self.coordinates, members.split(LARGE))])
            .sum(0)
            .div(len(members))
            for members in (rows[clusters == k] for k in range(int(clusters.max()) + 1))
        ]
        return torch.stack(means) if means else torch.zeros(0, 1, dtype=torch.float64)


def figures_of(
    part: Part,
    min_cluster_size: int,
    n_neighbors: int,
    sources: Int[Tensor, "source"] | None = None,
) -> tuple[dict[str, Estimate], Int[Tensor, "point"], Float[Tensor, "item dim"]]:
    """Return the figures of a part, its clusters, and the centroids of its items."""
    free = free_figures(part.cloud, min_cluster_size, n_neighbors, sources)
    figures = free.figures | {"Avg Dim": pooled_dimension(part.cloud, part.labels)}
    for name, statistic in BY_CENTROIDS.items():
        figures[name] = statistic(part.at_mentions, part.mentioned)
    return figures, free.clusters, item_means(part.at_mentions, part.mentioned)
