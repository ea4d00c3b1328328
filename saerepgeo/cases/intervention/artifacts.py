"""What the interventions on latents leave on disk and in TensorBoard."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from saerepgeo.cases.intervention.figures import centroid_map_figure, random_walk_figure
from saerepgeo.cases.intervention.interventions import Intervention
from saerepgeo.cases.intervention.paper_statistic import paper_statistic
from saerepgeo.cases.intervention.random_walk import Walk
from saerepgeo.report.files import file_name, merge_rows, read_rows, save_figure
from saerepgeo.report.tensorboard import add_figure, tensorboard_writer
from saerepgeo.types import ConceptActivations

TABLE = "intervention_analysis_results_icd_monge.csv"
ROW_KEY = ("concept", "model", "protocol")
SHOWN = ("AEDP", (0.5, 1.0, 1.5))
"""Loss and scale factors of the maps of centroids."""


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
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ConceptActivations,
        *_: Any,
    ) -> None:
        result: Intervention = outputs["result"]
        merge_rows(self.dirpath / TABLE, result.rows, ROW_KEY)
        before = result.centroids.cpu()
        self.n_features = before.shape[1]
        self.walks[batch.concept] = result.walks
        loss_type, scale_factors = SHOWN
        moved = {
            f"{batch.concept}, α = {alpha:g}": before
            + result.displaced[loss_type, alpha].displacements.cpu()
            for alpha in scale_factors
            if (loss_type, alpha) in result.displaced
        }
        if moved:
            figure = centroid_map_figure(before, moved, result.items)
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
        save_figure(figure, self.dirpath / name)
        add_figure(tensorboard_writer(trainer), f"intervention/{name}", figure)
