"""Figures of the interventions on latents: centroid maps, and the random walk."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.cases.intervention.paper_statistic import random_walk_distance
from saerepgeo.report.palette import COLORS, new_figure
from saerepgeo.types import Float

__all__ = ["centroid_map_figure", "random_walk_figure"]

Row = Mapping[str, Any]


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
    _, _, axes_of_space = torch.linalg.svd(everything - mean, full_matrices=False)
    plane = axes_of_space[:2].T
    figure = new_figure(3.6 * max(len(after), 1), 3.6)
    panels = figure.subplots(1, max(len(after), 1), squeeze=False, sharex=True, sharey=True)[0]
    start = (before.double() - mean) @ plane
    start = torch.nn.functional.pad(start, (0, 2 - start.shape[1]))
    for axis, (name, moved) in zip(panels, after.items(), strict=False):
        end = torch.nn.functional.pad((moved.double() - mean) @ plane, (0, 2 - plane.shape[1]))
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


def random_walk_figure(walks: Iterable[Row], n_features: int) -> Any:
    """Return how far the paper protocol's centroids move apart, and what a random walk gives.

    Args:
        walks: mappings with `name`, `scale_factor`, `distances` (means over pairs, one a step, from
            step 0) and `start` (each pair's distance at step 0).
        n_features: coordinates of the latents.
    """
    figure = new_figure(5.2, 3.8)
    axis = figure.subplots()
    for number, walk in enumerate(walks):
        distances, alpha = list(walk["distances"]), float(walk["scale_factor"])
        color = COLORS[number % len(COLORS)]
        start, steps = distances[0], range(len(distances))
        label = f"{walk['name']}, α = {alpha:g}, d₀ = {start:.1f}"
        growth = [distance - start for distance in distances]
        axis.plot(steps, growth, "o", color=color, markersize=4, label=label)
        pairs = list(walk["start"])
        expected = [
            statistics.fmean(random_walk_distance(d, n_features, n, alpha) for d in pairs) - start
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
