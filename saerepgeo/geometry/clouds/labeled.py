"""The points of one space with their items and prompts; what costs much is found once."""

from collections.abc import Callable, Hashable
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Cloud, RowCloud
from saerepgeo.geometry.clouds.conversion import (
    as_cloud,
    as_float64,
    check_labels_of,
    check_points,
    count_points,
    take_points,
)
from saerepgeo.geometry.clouds.entries import in_float32
from saerepgeo.geometry.clouds.matrix import MATRIX_POINTS, MatrixCloud
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.geometry.clouds.pairwise import rotated
from saerepgeo.geometry.clusters import cluster
from saerepgeo.geometry.separation import ClassMoments, centroids, class_moments
from saerepgeo.types import Float, Int, SparseLatents

KEPT = ("cloud", "part", "clusters", "centers")
"""What other items of the same points do not change."""
Found = TypeVar("Found")


class LabeledCloud:
    """Points, which item and prompt each belongs to, and what has been found of them.

    What is asked for through `found` is computed once, however many figures read it. Up to
    `MATRIX_POINTS` points the coordinates are turned into as many dimensions as there are points,
    and all distances are held at once: a subsample reads off its own. More points stay as they
    came, dense or sparse, and are measured block by block.

    Args:
        points: coordinates, dense or latents by their active entries.
        labels: item of each point that stands for one; −1 (by default, all) for the others.
        named: item that each point has seen, −1 before it was named; by default `labels`.
        prompts: which prompt each point comes from; by default every point is one of its own.
        positions: place of each point in its prompt; by default 0.
        name: what random draws are for; another name, other draws.
        concept: what subsamples are drawn for: spaces of one concept share them.
        is_turned: False keeps coordinates and distances of many digits also of few points.
    """

    sources: Int[Tensor, "source"] | None = None
    """Points whose paths stand for all in average path lengths; None: all."""

    def __init__(
        self,
        points: Float[Tensor, "point dim"] | SparseLatents,
        labels: Int[Tensor, "point"] | None = None,
        named: Int[Tensor, "point"] | None = None,
        prompts: Int[Tensor, "point"] | None = None,
        positions: Int[Tensor, "point"] | None = None,
        *,
        name: str = "",
        concept: str = "",
        is_turned: bool = True,
    ) -> None:
        check_points(points)
        for column, given in (("labels", labels), ("named", named), ("prompts", prompts)):
            if given is not None:
                check_labels_of(points, given, column)
        self._given: Any = points
        self._rows: Tensor | None = None
        self.n_points = count_points(points)
        none = torch.full((self.n_points,), -1)
        self.labels = none if labels is None else labels.cpu()
        self.named = self.labels if named is None else named.cpu()
        self.prompts = torch.arange(self.n_points) if prompts is None else prompts.cpu()
        self.positions = torch.zeros_like(none) if positions is None else positions.cpu()
        self.name, self.concept = name, concept
        self.is_large = self.n_points > MATRIX_POINTS
        self._is_turned = is_turned and not self.is_large
        self._make_cloud: Callable[[], Cloud] = self._measured
        self._read: Callable[[Tensor | None], Tensor] = self._own_coordinates
        self._found: dict[tuple[Hashable, ...], Any] = {}

    @classmethod
    def of_cloud(
        cls,
        cloud: Cloud,
        points: Float[Tensor, "point dim"],
        sources: Int[Tensor, "source"] | None = None,
    ) -> "LabeledCloud":
        """Return points whose distances are known, without items."""
        made = cls(points)
        made._make_cloud, made.sources = lambda: cloud, sources
        made._read = lambda rows: (points if rows is None else points[rows]).double()
        return made

    @property
    def points(self) -> Any:
        """The points as they came, dense or sparse."""
        return self._given if self._rows is None else take_points(self._given, self._rows)

    def found(self, key: tuple[Hashable, ...], find: Callable[[], Found]) -> Found:
        """Return what `find` gave when `key` was first asked for."""
        if key not in self._found:
            self._found[key] = find()
        return self._found[key]

    @property
    def cloud(self) -> Cloud:
        """The points as the neighbor search sees them."""
        return self.found(("cloud",), self._make_cloud)

    def part(self, rows: Int[Tensor, "row"]) -> Any:
        """Return the points `rows` by their distances where these are held, else coordinates."""
        if not isinstance(self.cloud, MatrixCloud):
            return self.coordinates(rows)
        return self.found(("part", rows.numpy().tobytes()), lambda: self.cloud.take(rows))

    def search(self, n_neighbors: int) -> None:
        """Find neighbors of every point, as many as there are, for all figures at once."""
        n_neighbors = min(n_neighbors, self.n_points - 1)
        if n_neighbors > 0:
            nearest_neighbors(self.cloud, n_neighbors)

    def coordinates(self, rows: Int[Tensor, "row"] | None = None) -> Float[Tensor, "row dim"]:
        """Return points by their coordinates, in float64 on the CPU, up to a motion of all."""
        return self._read(rows)

    def take(
        self, rows: Int[Tensor, "row"], sources: Int[Tensor, "source"] | None = None
    ) -> "LabeledCloud":
        """Return the points `rows`, few enough for the matrix of their distances."""
        taken = copy(self)
        taken._rows = rows if self._rows is None else self._rows[rows]
        taken.n_points, taken.sources, taken._found = len(rows), sources, {}
        for column in ("labels", "named", "prompts", "positions"):
            setattr(taken, column, getattr(self, column)[rows])
        taken.is_large, taken._is_turned = False, True
        taken._read = lambda index: self.coordinates(rows if index is None else rows[index])
        taken._make_cloud = lambda: self._part(rows)
        return taken

    def relabeled(
        self, labels: Int[Tensor, "point"] | None = None, named: Int[Tensor, "point"] | None = None
    ) -> "LabeledCloud":
        """Return the same points with other items; neighbors and clusters are shared."""
        other = copy(self)
        if labels is not None:
            other.labels = labels
        if named is not None:
            other.named = named
        other._found = {key: value for key, value in self._found.items() if key[0] in KEPT}
        other._make_cloud = lambda: self.cloud
        return other

    def with_sources(self, sources: Int[Tensor, "source"] | None) -> "LabeledCloud":
        """Return the same cloud, with the paths of other points standing for all."""
        other = self.relabeled()
        other.sources = sources
        return other

    @property
    def labeled(self) -> Int[Tensor, "row"]:
        """Rows that have a label."""
        return self.found(("labeled",), lambda: (self.labels >= 0).nonzero()[:, 0])

    @property
    def moments(self) -> ClassMoments:
        """Counts, sums and square sums of the items, over the labeled points."""

        def find() -> ClassMoments:
            labels = self.labels[self.labeled]
            n_items = int(labels.max()) + 1 if len(labels) else 1
            return class_moments(self.coordinates(self.labeled), labels, n_items)

        return self.found(("moments",), find)

    @property
    def item_centers(self) -> Float[Tensor, "item dim"]:
        """Centroids of the items that have labeled points, in order."""
        return centroids(self.moments)

    def clusters(self, min_cluster_size: int) -> Int[Tensor, "point"]:
        """Return the HDBSCAN cluster of each point, −1 for noise; on the CPU, as labels are."""

        def find() -> Tensor:
            given = self.cloud if self._is_turned or self.is_large else self.points
            return cluster(given, min_cluster_size).cpu()

        return self.found(("clusters", min_cluster_size), find)

    def cluster_centers(self, min_cluster_size: int) -> Float[Tensor, "cluster dim"]:
        """Return the means of the clusters 0, 1, …"""

        def find() -> Tensor:
            clusters = self.clusters(min_cluster_size)
            members = [(clusters == k).nonzero()[:, 0] for k in range(int(clusters.max()) + 1)]
            if not members:
                return torch.zeros(0, 1, dtype=torch.float64)
            return torch.stack([self._mean(rows) for rows in members])

        return self.found(("centers", min_cluster_size), find)

    def forget_distances(self) -> None:
        """Free the largest part; labels, clusters and centroids stay."""
        self._found.pop(("cloud",), None)

    def _mean(self, rows: Tensor) -> Tensor:
        sums = [self.coordinates(block).sum(0) for block in rows.split(MATRIX_POINTS)]
        return torch.stack(sums).sum(0) / len(rows)

    def _own_coordinates(self, rows: Tensor | None) -> Tensor:
        if self._is_turned:
            x = self.found(("turned",), lambda: rotated(as_float64(self._given)))
            return x if rows is None else x[rows]
        assert isinstance(self.cloud, RowCloud)
        index = None if rows is None else rows.to(self.cloud.device)
        return self.cloud.coordinates(index).cpu()

    def _measured(self) -> Cloud:
        if self._is_turned:
            return MatrixCloud.of_points(self.coordinates())
        return as_cloud(self.points)

    def _part(self, rows: Tensor) -> Cloud:
        if isinstance(self.cloud, MatrixCloud):
            return self.cloud.take(rows)
        return MatrixCloud.of_points(in_float32(self.coordinates(rows)))
