"""What the interventions on latents leave on disk and in TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor

from saerepgeo.cases.intervention.interventions import Intervention
from saerepgeo.cases.intervention.paper_statistics import paper_statistic
from saerepgeo.cases.intervention.random_walk import Walk, random_walk_distance
from saerepgeo.cases.structure.figures import principal_plane
from saerepgeo.report.files import file_name, merge_rows, read_rows
from saerepgeo.report.palette import COLORS, new_figure
from saerepgeo.report.tensorboard import show_figure, tensorboard_writer
from saerepgeo.types import ConceptActivations, Float

TABLE = "intervention_analysis_results_icd_monge.csv"
ROW_KEY = ("concept", "model", "protocol")
SHOWN = tuple(("AEDP", scale_factor) for scale_factor in (0.5, 1.0, 1.5))
"""Loss and scale factor of the maps of centroids."""


class InterventionArtifacts(Callback):
    """Write the table of both protocols, maps of centroids, and the paper's random walk.

    Rows of a (concept, model, protocol) are added, or replaced, as soon as the concept is done.
    At the end the paper's own statistic is printed and written to `paper_statistic.csv`.

    Args:
        dirpath: the folder to write.
    """

    def __init__(self, dirpath: str = "outputs/case3_intervention_analysis") -> None:
        self.dirpath = Path(dirpath)
        self.walks: dict[str, dict[float, Walk]] = {}
        self.n_features = 0

    @rank_zero_only
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.walks = {}

    @rank_zero_only
    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: ConceptActivations, *_: Any
    ) -> None:
        result: Intervention = outputs["result"]
        merge_rows(self.dirpath / TABLE, result.rows, ROW_KEY)
        before = result.centroids.cpu()
        self.n_features, self.walks[batch.concept] = before.shape[1], result.walks
        after = {
            f"{batch.concept}, α = {key[1]:g}": before + result.displaced[key].displacements.cpu()
            for key in SHOWN
            if key in result.displaced
        }
        if after:
            figure = centroid_map_figure(before, after, result.items)
            self._show(trainer, figure, f"centroids_{file_name(result.model, batch.concept)}")

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        alpha = max((alpha for walks in self.walks.values() for alpha in walks), default=None)
        if alpha is not None:
            chosen = {name: walks[alpha] for name, walks in self.walks.items() if alpha in walks}
            self._show(trainer, random_walk_figure(chosen, alpha, self.n_features), "random_walk")
        found = paper_statistic(read_rows(self.dirpath / TABLE))
        merge_rows(self.dirpath / "paper_statistic.csv", found, ("model", "concept", "loss_type"))
        for entry in found:
            rank_zero_info(f"paper's statistic, {entry['model']}: {entry['sentence']}")
        rank_zero_info(f"wrote {self.dirpath / TABLE}")

    def _show(self, trainer: Trainer, figure: Any, name: str) -> None:
        writer = tensorboard_writer(trainer)
        show_figure(writer, figure, self.dirpath / name, f"intervention/{name}")


def centroid_map_figure(
    before: Float[Tensor, "item dim"],
    after: Mapping[str, Float[Tensor, "item dim"]],
    items: Sequence[str],
) -> Any:
    """Return the items' centroids before and after each intervention in the plane of them all."""
    n_panels = max(len(after), 1)
    figure = new_figure(3.6 * n_panels, 3.6)
    panels = figure.subplots(1, n_panels, squeeze=False, sharex=True, sharey=True)[0]
    flat, _ = principal_plane(torch.cat([before, *after.values()]))
    start, *ends = flat.split(len(before))
    for axis, name, end in zip(panels, after, ends, strict=False):
        for number, (item, tail, head) in enumerate(
            zip(items, start.tolist(), end.tolist(), strict=True)
        ):
            color = COLORS[number % len(COLORS)]
            axis.annotate("", head, tail, arrowprops={"arrowstyle": "->", "color": color})
            axis.plot(*tail, "o", color=color, markersize=4)
            axis.annotate(item, head, fontsize="xx-small")
        axis.plot(*end.T.tolist(), linestyle="none", marker="x", color="0.3", markersize=4)
        axis.set(title=name, xlabel="principal axis 1 [residual units]")
    panels[0].set_ylabel("principal axis 2 [residual units]")
    return figure


def random_walk_figure(walks: Mapping[str, Walk], scale_factor: float, n_features: int) -> Any:
    """Return how far the paper protocol's centroids move apart, and what a random walk gives.

    `walks` are those of one scale factor by concept, in `n_features` latents.
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
    title = "points: the protocol · lines: mean over pairs of √(d₀² + 2F·n·(0.01α)²) − d₀"
    axis.set_title(title, fontsize="small")
    axis.set(xlabel="step n", ylabel="growth of the mean distance of centroids")
    axis.legend(fontsize="x-small")
    return figure
