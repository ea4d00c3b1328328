"""Figures of case 2: cluster maps, the tree of the items, dimension by scale."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.clouds.pairwise import rotated
from saerepgeo.geometry.dimension import gride
from saerepgeo.geometry.graphs import minimum_spanning_tree
from saerepgeo.geometry.separation import centroids, class_moments
from saerepgeo.report.palette import COLORS, look, new_figure
from saerepgeo.types import Float

MIN_CLUSTER_SIZE = 10
"""Of the clusters in maps and label files."""
Clouds = Mapping[str, LabeledCloud]
"""The points of a concept by the name of their space."""


def cluster_maps(title: str, protocol: str, clouds: Clouds, items: Sequence[str]) -> Any:
    """Return both spaces on their first two principal components: HDBSCAN clusters, and items."""
    figure = new_figure(10.0, 8.5)
    axes = figure.subplots(2, 2)
    unit = "residual units" if protocol == "sound" else "UMAP's units"
    for (top, bottom), (space, cloud) in zip(axes.T, clouds.items(), strict=False):
        flat, share = principal_plane(cloud.points)
        clusters = cloud.clusters(MIN_CLUSTER_SIZE)
        counts = f"{int(clusters.max()) + 1} HDBSCAN clusters, {int((clusters < 0).sum())} noise"
        top.set_title(f"{space}: {counts} (n = {len(flat)})", fontsize=9)
        _numbered(top, flat, clusters)
        n_named = int((cloud.named >= 0).sum())
        bottom.set_title(f"{space}: {len(items)} items (n = {n_named} named)", fontsize=9)
        _noise(bottom, flat, cloud.named)
        for number, name in enumerate(items):
            members = flat[cloud.named == number].T.tolist()
            bottom.scatter(*members, s=14, label=name, linewidths=0, **look(number))
        for axis in (top, bottom):
            _name_axes(axis, share, unit)
    handles, labels = axes[1][0].get_legend_handles_labels()
    legend = {"loc": "outside lower center", "ncols": 7, "fontsize": 7}
    figure.legend(handles, labels, title="items (lower row)", title_fontsize=7, **legend)
    rows = "upper row: clusters by number, each space its own; grey: noise, or no item yet"
    figure.suptitle(f"{title}, protocol {protocol}\n{rows}", fontsize=10)
    return figure


def tree_maps(title: str, clouds: Clouds, items: Sequence[str]) -> Any:
    """Return the minimum spanning tree over item centroids, drawn on their principal components.

    Centroids of the points at the items' mentions, as for `MST Weight`.
    """
    figure = new_figure(11.0, 5.0)
    axes = figure.subplots(1, len(clouds), squeeze=False)[0]
    for axis, (space, cloud) in zip(axes, clouds.items(), strict=True):
        moments = class_moments(cloud.points, cloud.labels.to(cloud.points.device), len(items))
        present = (moments.counts > 0).nonzero()[:, 0].tolist()
        centers = centroids(moments)
        tree = minimum_spanning_tree(centers)
        flat, share = principal_plane(centers)
        for edge in tree.edges.tolist():
            axis.plot(*flat[edge].T.tolist(), color="#777777", linewidth=1, zorder=1)
        axis.scatter(*flat.T.tolist(), color=COLORS[0], s=18, zorder=2)
        for place, name in zip(flat.tolist(), present, strict=True):
            axis.annotate(items[name], place, fontsize=7, xytext=(3, 3), textcoords="offset points")
        counts = f"{len(present)} item centroids of n = {int(moments.counts.sum())}"
        weight = f"MST weight {float(tree.lengths.sum()):.4g}"
        axis.set_title(f"{space}: {counts}, {weight}", fontsize=9)
        _name_axes(axis, share, "residual units")
    figure.suptitle(f"{title}: tree in all dimensions, drawn in two", fontsize=10)
    return figure


def dimension_by_scale(title: str, clouds: Clouds) -> Any:
    """Return the intrinsic dimension (GRIDE) over the scale at which the points are looked at."""
    figure = new_figure(6.0, 4.2)
    axis = figure.subplots()
    for number, (space, cloud) in enumerate(clouds.items()):
        curve = gride(cloud.cloud)
        if not len(curve.n1):
            continue
        axis.errorbar(
            # units differ between the spaces: scales in units of the widest
            (curve.distances / curve.distances.max()).tolist(),
            curve.dimensions.tolist(),
            yerr=(1.96 * curve.standard_errors).tolist(),
            label=f"{space} (n = {curve.n_used})",
            capsize=3,
            **look(number),
        )
    axis.set_xlabel("scale: mean distance of neighbor 2k, share of the largest (k = 1, 2, 4, …)")
    axis.set_ylabel("intrinsic dimension (GRIDE)")
    axis.set_ylim(bottom=0)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    axis.set_title(f"{title}\nbars: 1.96 standard errors", fontsize=9)
    return figure


def principal_plane(
    points: Float[Tensor, "point dim"], n: int = 2
) -> tuple[Float[Tensor, "point n"], list[float]]:
    """Return points on their first `n` principal components, and the variance share of each."""
    x = rotated(points)
    squares, axes = torch.linalg.eigh(x.T @ x)
    flat, squares = x @ axes.flip(1)[:, :n], squares.flip(0).clamp(min=0)
    missing = n - flat.shape[1]
    share = squares[:n] / squares.sum().clamp(min=1e-300)
    return pad(flat, (0, missing)), pad(share, (0, missing)).tolist()


def _name_axes(axis: Any, share: list[float], unit: str) -> None:
    for number, name in enumerate((axis.set_xlabel, axis.set_ylabel)):
        about = f"{unit}; {share[number]:.0%} of variance"
        name(f"principal component {number + 1} ({about})", fontsize=8)


def _noise(axis: Any, flat: Tensor, labels: Tensor) -> None:
    axis.scatter(*flat[labels < 0].T.tolist(), s=6, color="#BBBBBB", marker=".")


def _numbered(axis: Any, flat: Tensor, clusters: Tensor) -> None:
    """Draw clusters in shades that no item has, each with its number at its middle."""
    from matplotlib import colormaps

    _noise(axis, flat, clusters)
    last = int(clusters.max())
    for number in range(last + 1):
        members = flat[clusters == number]
        shade = colormaps["viridis"](0.9 * number / max(last, 1))
        axis.scatter(*members.T.tolist(), s=10, color=shade, marker="o", linewidths=0)
        middle = members.median(0).values.tolist()
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": shade, "alpha": 0.8}
        axis.annotate(str(number), middle, fontsize=7, ha="center", va="center", bbox=box)
