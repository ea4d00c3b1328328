"""Figures of the interventions on latents: centroid maps, and the random walk."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from saerepgeo.cases.intervention.random_walk import Walk, random_walk_distance
from saerepgeo.report.palette import COLORS, new_figure
from saerepgeo.types import Float


def centroid_map_figure(
    before: Float[Tensor, "item dim"],
    after: Mapping[str, Float[Tensor, "item dim"]],
    items: Sequence[str],
) -> Any:
    """Return the items' centroids before and after each intervention in one common plane.

    The plane is spanned by the first two principal axes of all of them together.
    """
    everything = torch.cat([before, *after.values()]).double()
    mean = everything.mean(0)
    plane = torch.linalg.svd(everything - mean, full_matrices=False).Vh[:2].T

    def on_plane(points: Tensor) -> Tensor:
        shown = (points.double() - mean) @ plane
        return torch.nn.functional.pad(shown, (0, 2 - plane.shape[1]))

    n_panels = max(len(after), 1)
    figure = new_figure(3.6 * n_panels, 3.6)
    panels = figure.subplots(1, n_panels, squeeze=False, sharex=True, sharey=True)[0]
    start = on_plane(before)
    for axis, (name, moved) in zip(panels, after.items(), strict=False):
        end = on_plane(moved)
        for number, item in enumerate(items):
            color = COLORS[number % len(COLORS)]
            axis.annotate(
                "",
                end[number].tolist(),
                start[number].tolist(),
                arrowprops={"arrowstyle": "->", "color": color},
            )
            axis.plot(*start[number].tolist(), "o", color=color, markersize=4)
            axis.annotate(item, end[number].tolist(), fontsize="xx-small")
        axis.plot(end[:, 0], end[:, 1], linestyle="none", marker="x", color="0.3", markersize=4)
        axis.set(title=name, xlabel="principal axis 1 [residual units]")
    panels[0].set_ylabel("principal axis 2 [residual units]")
    return figure


def random_walk_figure(walks: Mapping[str, Walk], scale_factor: float, n_features: int) -> Any:
    """Return how far the paper protocol's centroids move apart, and what a random walk gives.

    Args:
        walks: of one scale factor, by concept.
        scale_factor: α.
        n_features: coordinates of the latents.
    """
    figure = new_figure(5.2, 3.8)
    axis = figure.subplots()
    for number, (name, walk) in enumerate(walks.items()):
        color = COLORS[number % len(COLORS)]
        start, steps = float(walk.distances[0]), range(len(walk.distances))
        label = f"{name}, α = {scale_factor:g}, d₀ = {start:.1f}"
        axis.plot(steps, walk.distances - start, "o", color=color, markersize=4, label=label)
        pairs = walk.start.tolist()
        expected = [
            fmean(random_walk_distance(d, n_features, n, scale_factor) for d in pairs) - start
            for n in steps
        ]
        axis.plot(steps, expected, "-", color=color, linewidth=1)
    axis.set(
        xlabel="step n",
        ylabel="growth of the mean distance of centroids",
        title="points: the protocol · lines: mean over pairs of √(d₀² + 2F·n·(0.01α)²) − d₀",
    )
    axis.title.set_fontsize("small")
    axis.legend(fontsize="x-small")
    return figure
