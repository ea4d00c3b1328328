"""Figures of case 3: dose–response with controls, Pareto front, centroid maps, the random walk."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.callbacks.palette import COLORS, MARKERS, new_figure
from saerepgeo.types import Float
from saerepgeo.verdict.paper import random_walk_distance

__all__ = ["centroid_map_figure", "dose_response_figure", "pareto_figure", "random_walk_figure"]

Row = Mapping[str, Any]


def dose_response_figure(
    rows: Sequence[Row], separability: str = "relative_aedp", error: str = "mse"
) -> Any:
    """Return Δ log error against Δ log separability on held-out items, a panel a regularizer.

    Every point is a run against the control of its seed: filled with true labels, hollow with
    shuffled ones; colour is the dose. The cross is the control.
    """
    runs = _pooled_logs(rows, separability, error)
    controls = {seed: pair for (r, dose, seed, _), pair in runs.items() if dose == 0}
    regularizers = sorted({key[0] for key in runs if key[1] != 0})
    doses = sorted({key[1] for key in runs if key[1] != 0})
    figure = new_figure(4.2 * max(len(regularizers), 1), 3.8)
    axes = figure.subplots(1, max(len(regularizers), 1), squeeze=False, sharey=True)[0]
    for axis, regularizer in zip(axes, regularizers, strict=False):
        for number, dose in enumerate(doses):
            for labels in ("given", "shuffled"):
                found = [
                    (pair[0] - controls[key[2]][0], pair[1] - controls[key[2]][1])
                    for key, pair in runs.items()
                    if key[0] == regularizer and key[1] == dose and key[3] == labels
                    if key[2] in controls
                ]
                if found:
                    is_true = labels == "given"
                    color = COLORS[number % len(COLORS)]
                    axis.plot(
                        *zip(*found, strict=True),
                        linestyle="none",
                        marker=MARKERS[number % len(MARKERS)],
                        color=color,
                        markerfacecolor=color if is_true else "none",
                        label=f"λ = {dose:+g}" + ("" if is_true else ", shuffled labels"),
                    )
        axis.plot(0, 0, "k+", markersize=10, label="λ = 0")
        axis.axhline(0, color="0.8", zorder=0)
        axis.axvline(0, color="0.8", zorder=0)
        axis.set(title=regularizer, xlabel=f"Δ log {separability}, held-out items")
        axis.legend(fontsize="x-small")
    axes[0].set_ylabel(f"Δ log {error}, held-out items")
    return figure


def pareto_figure(rows: Sequence[Row], separability: str = "relative_aedp") -> Any:
    """Return separability of held-out items against FVU of held-out text, means over seeds."""
    x, y = defaultdict(list), defaultdict(list)
    for (regularizer, dose, _, labels), pair in _pooled_logs(rows, separability, "mse").items():
        x[regularizer, labels, dose].append(math.exp(pair[0]))
    for row in rows:
        if row["split"] == "text":
            y[row["regularizer"], row["labels"], float(row["dose"])].append(float(row["fvu"]))
    figure = new_figure(4.6, 3.8)
    axis = figure.subplots()
    arms = sorted({key[:2] for key in x if key[2] != 0})
    for number, arm in enumerate(arms):
        doses = sorted(
            [k for k in x if (k[:2] == arm or k[2] == 0) and k in y], key=lambda key: key[2]
        )
        points = [(_mean(x[k]), _mean(y[k])) for k in doses]
        style = "-" if arm[1] == "given" else ":"
        name = arm[0] if arm[1] == "given" else f"{arm[0]}, shuffled labels"
        color = COLORS[number % len(COLORS)]
        axis.plot(*zip(*points, strict=True), f"{style}o", color=color, label=name, markersize=4)
        for key, point in zip(doses, points, strict=True):
            axis.annotate(f"{key[2]:+g}", point, fontsize="xx-small")
    axis.set(xlabel=f"{separability}, held-out items", ylabel="FVU, held-out text")
    if arms:
        axis.legend(fontsize="x-small")
    return figure


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
        axis.set(title=name)
    return figure


def random_walk_figure(walks: Iterable[Row], n_features: int) -> Any:
    """Return the paper protocol's distance of centroids by step, with what a random walk gives.

    Args:
        walks: mappings with `name`, `scale_factor` and `distances` (one a step, from step 0).
        n_features: coordinates of the latents.
    """
    figure = new_figure(5.2, 3.8)
    axis = figure.subplots()
    for number, walk in enumerate(walks):
        distances, alpha = list(walk["distances"]), float(walk["scale_factor"])
        color = COLORS[number % len(COLORS)]
        label = f"{walk['name']}, α = {alpha:g}"
        axis.plot(distances, "o", color=color, markersize=4, label=label)
        expected = [
            random_walk_distance(distances[0], n_features, n, alpha) for n in range(len(distances))
        ]
        axis.plot(expected, "-", color=color, linewidth=1)
    axis.set(
        xlabel="step n",
        ylabel="mean distance of centroids",
        title="points: the protocol · lines: √(d₀² + 2F·n·(0.01α)²)",
    )
    axis.title.set_fontsize("small")
    axis.legend(fontsize="x-small")
    return figure


def _pooled_logs(
    rows: Iterable[Row], separability: str, error: str
) -> dict[tuple[str, float, int, str], tuple[float, float]]:
    """Return mean logs over concepts of each run, where every figure is positive."""
    found: dict[tuple[str, float, int, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["split"] != "heldout_items":
            continue
        pair = (float(row[separability]), float(row[error]))
        if all(math.isfinite(value) and value > 0 for value in pair):
            key = (row["regularizer"], float(row["dose"]), int(row["seed"]), row["labels"])
            found[key].append((math.log(pair[0]), math.log(pair[1])))
    most = max(map(len, found.values()), default=0)
    return {
        key: (_mean([p[0] for p in pairs]), _mean([p[1] for p in pairs]))
        for key, pairs in found.items()
        if len(pairs) == most
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
