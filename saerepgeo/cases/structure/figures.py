"""Figures of case 2: cluster maps, the tree of the items, dimension by scale, nulls."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.graphs import minimum_spanning_tree
from saerepgeo.geometry.separation import centroids, class_moments
from saerepgeo.report.palette import COLORS, MARKERS, new_figure

SIDES = {"resid": "residuals", "latents": "latents"}


def cluster_maps(title: str, views: Mapping[str, Any], items: Sequence[str]) -> Any:
    """Return both spaces on their first two principal components: HDBSCAN clusters, and items."""
    figure = new_figure(10.0, 8.5)
    axes = figure.subplots(2, 2)
    for column, (side, view) in enumerate(views.items()):
        flat, share = _plane(view.points)
        n_clusters = int(view.clusters.max()) + 1
        n_noise = int((view.clusters < 0).sum())
        top, bottom = axes[0][column], axes[1][column]
        top.set_title(
            f"{SIDES[side]}: {n_clusters} HDBSCAN clusters, {n_noise} noise (n = {len(flat)})",
            fontsize=9,
        )
        _numbered(top, flat, view.clusters, n_clusters)
        n_named = int((view.items >= 0).sum())
        bottom.set_title(f"{SIDES[side]}: {len(items)} items (n = {n_named} named)", fontsize=9)
        _scatter(bottom, flat, view.items, list(items))
        unit = "residual units" if view.scales is not None else "UMAP's units"
        for axis in (top, bottom):
            _name_axes(axis, share, unit)
    handles, labels = axes[1][0].get_legend_handles_labels()
    legend = {"loc": "outside lower center", "ncols": 7, "fontsize": 7}
    figure.legend(handles, labels, title="items (lower row)", title_fontsize=7, **legend)
    figure.suptitle(
        f"{title}\nupper row: clusters by number, each space its own; grey: noise, or no item yet",
        fontsize=10,
    )
    return figure


def tree_maps(title: str, views: Mapping[str, Any], items: Sequence[str]) -> Any:
    """Return the minimum spanning tree over item centroids, drawn on their principal components.

    Centroids of the points at the items' mentions, as for `MST Weight`.
    """
    figure = new_figure(11.0, 5.0)
    axes = figure.subplots(1, len(views), squeeze=False)[0]
    for axis, (side, view) in zip(axes, views.items(), strict=True):
        moments = class_moments(view.points, view.mentions.to(view.points.device), len(items))
        present = (moments.counts > 0).nonzero()[:, 0].tolist()
        centers = centroids(moments)
        tree = minimum_spanning_tree(centers)
        flat, share = _plane(centers)
        for start, end in tree.edges.tolist():
            axis.plot(*flat[[start, end]].T.tolist(), color="#777777", linewidth=1, zorder=1)
        axis.scatter(*flat.T.tolist(), color=COLORS[0], s=18, zorder=2)
        for place, name in zip(flat.tolist(), present, strict=True):
            axis.annotate(items[name], place, fontsize=7, xytext=(3, 3), textcoords="offset points")
        axis.set_title(
            f"{SIDES[side]}: {len(present)} item centroids of n = {int(moments.counts.sum())}, "
            f"MST weight {float(tree.lengths.sum()):.4g}",
            fontsize=9,
        )
        _name_axes(axis, share, "residual units")
    figure.suptitle(f"{title}: tree in all dimensions, drawn in two", fontsize=10)
    return figure


def dimension_by_scale(title: str, views: Mapping[str, Any]) -> Any:
    """Return the intrinsic dimension (GRIDE) over the scale at which the points are looked at."""
    figure = new_figure(6.0, 4.2)
    axis = figure.subplots()
    for number, (side, view) in enumerate(views.items()):
        curve = view.scales
        if curve is None or not len(curve.n1):
            continue
        # units differ between the spaces: scales in units of the widest
        scale = (curve.distances / curve.distances.max()).tolist()
        axis.errorbar(
            scale,
            curve.dimensions.tolist(),
            yerr=(1.96 * curve.standard_errors).tolist(),
            label=f"{SIDES[side]} (n = {curve.n_used})",
            color=COLORS[number],
            marker=MARKERS[number],
            capsize=3,
        )
    axis.set_xlabel("scale: mean distance of neighbor 2k, share of the largest (k = 1, 2, 4, …)")
    axis.set_ylabel("intrinsic dimension (GRIDE)")
    axis.set_ylim(bottom=0)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    axis.set_title(f"{title}\nbars: 1.96 standard errors", fontsize=9)
    return figure


def _plane(points: Tensor) -> tuple[Tensor, list[float]]:
    x = points.detach().double().cpu()
    x = x - x.mean(0)
    # of the smaller Gram matrix: two directions are asked for, not all of them
    is_wide = x.shape[1] > x.shape[0]
    squares, vectors = torch.linalg.eigh(x @ x.T if is_wide else x.T @ x)
    top = squares.flip(0).clamp(min=0)[:2]
    share = top / squares.clamp(min=0).sum().clamp(min=1e-300)
    axes = vectors.flip(1)[:, :2]
    flat = axes * top.sqrt() if is_wide else x @ axes
    missing = 2 - flat.shape[1]
    flat = torch.nn.functional.pad(flat, (0, missing))
    return flat, [*share.tolist(), 0.0, 0.0][:2]


def _name_axes(axis: Any, share: list[float], unit: str) -> None:
    for number, name in enumerate((axis.set_xlabel, axis.set_ylabel)):
        name(
            f"principal component {number + 1} ({unit}; {share[number]:.0%} of variance)",
            fontsize=8,
        )


def _numbered(axis: Any, flat: Tensor, clusters: Tensor, n_clusters: int) -> None:
    """Draw clusters in shades that no item has, each with its number at its middle."""
    from matplotlib import colormaps

    noise = clusters < 0
    axis.scatter(*flat[noise].T.tolist(), s=6, color="#BBBBBB", marker=".")
    shades = colormaps["viridis"]
    for number in range(n_clusters):
        members = flat[clusters == number]
        shade = shades(0.9 * number / max(n_clusters - 1, 1))
        axis.scatter(*members.T.tolist(), s=10, color=shade, marker="o", linewidths=0)
        middle = members.median(0).values.tolist()
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": shade, "alpha": 0.8}
        axis.annotate(str(number), middle, fontsize=7, ha="center", va="center", bbox=box)


def _scatter(axis: Any, flat: Tensor, labels: Tensor, names: list[str]) -> None:
    noise = labels < 0
    axis.scatter(*flat[noise].T.tolist(), s=6, color="#BBBBBB", marker=".")
    for number, name in enumerate(names):
        members = flat[labels == number].T.tolist()
        color = COLORS[number % len(COLORS)]
        marker = MARKERS[number % len(MARKERS)]
        axis.scatter(*members, s=14, color=color, marker=marker, label=name, linewidths=0)
