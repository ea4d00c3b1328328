"""Figures of case 3: dose–response with controls, Pareto front, centroid maps, the random walk."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.cases.intervention.paper_statistic import random_walk_distance
from saerepgeo.report.palette import COLORS, MARKERS, new_figure
from saerepgeo.types import Float

__all__ = ["centroid_map_figure", "dose_response_figure", "pareto_figure", "random_walk_figure"]

Row = Mapping[str, Any]


def dose_response_figure(
    rows: Sequence[Row], separability: str = "relative_aedp", error: str = "mse"
) -> Any:
    """Return Δ log error against Δ log separability on held-out items, a panel a regularizer.

    Every point is a run against the control of its seed: filled with true labels, hollow with
    shuffled ones; color is the dose. The cross is the control.
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
        n_seeds = len({key[2] for key in runs if key[0] == regularizer})
        axis.set(
            title=f"{regularizer}, n = {n_seeds} seeds",
            xlabel=f"Δ log {separability}, held-out items",
        )
        axis.locator_params(axis="x", nbins=5)
        axis.legend(fontsize="x-small")
    axes[0].set_ylabel(f"Δ log {error}, held-out items")
    return figure


def pareto_figure(rows: Sequence[Row], separability: str = "relative_aedp") -> Any:
    """Return separability of held-out items against FVU of held-out text, both against λ = 0.

    Points are means over seeds of log ratios to the control of the same seed, whiskers ± one
    standard error.
    """
    logs = _pooled_logs(rows, separability, "mse")
    fvu = {_run(row): math.log(float(row["fvu"])) for row in rows if row["split"] == "text"}
    controls = {key[2]: key for key in logs if key[1] == 0 and key in fvu}
    changes = defaultdict(list)
    for key in logs.keys() & fvu.keys():
        control = controls.get(key[2])
        if control is not None and key != control:
            change = (logs[key][0] - logs[control][0], fvu[key] - fvu[control])
            changes[key[0], key[3], key[1]].append(change)
    figure = new_figure(4.8, 3.8)
    axis = figure.subplots()
    axis.plot(0, 0, "k+", markersize=10, label="λ = 0")
    for number, arm in enumerate(sorted({key[:2] for key in changes})):
        doses = sorted(key[2] for key in changes if key[:2] == arm)
        x, y = zip(*(zip(*changes[(*arm, dose)], strict=True) for dose in doses), strict=True)
        is_given = arm[1] == "given"
        axis.errorbar(
            [100 * _mean(v) for v in x],
            [100 * _mean(v) for v in y],
            xerr=[100 * _standard_error(v) for v in x],
            yerr=[100 * _standard_error(v) for v in y],
            fmt=("-" if is_given else ":") + MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=4,
            label=arm[0] if is_given else f"{arm[0]}, shuffled labels",
        )
        for dose, each_x, each_y in zip(doses, x, y, strict=True):
            axis.annotate(
                f"{dose:+g}",
                (100 * _mean(each_x), 100 * _mean(each_y)),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize="xx-small",
            )
    axis.set(
        xlabel=f"Δ {separability}, held-out items [%]",
        ylabel="Δ FVU, held-out text [%]",
        title=f"n = {len(controls)} seeds",
    )
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
            _mean([random_walk_distance(d, n_features, n, alpha) for d in pairs]) - start
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
            found[_run(row)].append((math.log(pair[0]), math.log(pair[1])))
    most = max(map(len, found.values()), default=0)
    return {
        key: (_mean([p[0] for p in pairs]), _mean([p[1] for p in pairs]))
        for key, pairs in found.items()
        if len(pairs) == most
    }


def _run(row: Row) -> tuple[str, float, int, str]:
    return row["regularizer"], float(row["dose"]), int(row["seed"]), row["labels"]


def _standard_error(values: Sequence[float]) -> float:
    n, mean = len(values), _mean(values)
    if n < 2:
        return 0.0
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
