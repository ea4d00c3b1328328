"""What case 2 leaves on disk and in TensorBoard."""

from collections import defaultdict
from typing import Any

from lightning.pytorch import Trainer

from saerepgeo.cases.artifacts import PLACES, CaseArtifacts, Rows
from saerepgeo.cases.spaces import LATENTS, RESIDUALS
from saerepgeo.cases.structure import figures
from saerepgeo.cases.structure.shown import write_shown
from saerepgeo.cases.structure.table import COLUMNS, clustering_rows, summary
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.report.files import file_name, merge_rows, save_array, save_tensors
from saerepgeo.report.metric_panels import metric_panels
from saerepgeo.report.results import group_rows
from saerepgeo.report.tensorboard import add_points, show_figure, tensorboard_writer
from saerepgeo.types import ConceptActivations

TABLE = "clustering_analysis_results.csv"


class StructureArtifacts(CaseArtifacts):
    """Write case 2: rows, cluster labels, residuals and figures of a concept once it is done.

    `clustering_analysis_results.csv` is the long table in the paper's shape.
    `clusters_<model>_<concept>_{resid,latents}.npy` holds the labels of the first protocol of the
    run (the paper's, by default: one for every position, BOS and padding included), and
    `…_sound_{resid,latents}.npy` those of `sound`, one for every distinct real position. Maps and
    labels are those of the first SAE. `shown_<model>_<concept>.json` is for the report page.

    Args:
        dirpath: the folder to write.
    """

    def __init__(self, dirpath: str = "outputs/case2_representation_structure") -> None:
        super().__init__(dirpath)

    def finish(
        self, trainer: Trainer, module: Any, batch: ConceptActivations, parts: Rows, rows: Rows
    ) -> None:
        """Write tables, labels, residuals and maps of a concept."""
        stem = file_name(module.name, batch.concept)
        merge_rows(self.dirpath / TABLE, clustering_rows(rows), COLUMNS[:3])
        tensors = {name: getattr(batch, name) for name in ("residuals", *PLACES)}
        save_tensors(self.dirpath / f"resid_{stem}.safetensors", tensors)
        prompts = getattr(trainer.datamodule, "prompts", None)  # type: ignore[attr-defined]
        texts = prompts[batch.concept].prompts if prompts is not None else ()
        write_shown(self.dirpath / f"shown_{stem}.json", module.name, batch, texts, parts)
        clouds: dict[str, dict[str, LabeledCloud]] = defaultdict(dict)
        for part in parts:
            if part["space"] in (RESIDUALS, LATENTS):
                clouds[part["protocol"]][part["space"].name] = part["cloud"]
        for number, (protocol, spaces) in enumerate(clouds.items()):
            for space, cloud in spaces.items():
                end = f"{'resid' if space == 'residuals' else space}.npy"
                clusters = cloud.clusters(figures.MIN_CLUSTER_SIZE)
                if number == 0:
                    save_array(self.dirpath / f"clusters_{stem}_{end}", clusters)
                if protocol == "sound":
                    save_array(self.dirpath / f"clusters_{stem}_sound_{end}", clusters)
        title = f"{module.name}, {batch.concept}"
        drawn = {
            f"cluster_map_{protocol}": figures.cluster_maps(title, protocol, spaces, batch.items)
            for protocol, spaces in clouds.items()
        }
        if "sound" in clouds:
            drawn["item_tree"] = figures.tree_maps(title, clouds["sound"], batch.items)
            drawn["dimension_by_scale"] = figures.dimension_by_scale(title, clouds["sound"])
        for name, figure in drawn.items():
            path = self.dirpath / f"{name}_{stem}"
            show_figure(tensorboard_writer(trainer), figure, path, f"{name}/{batch.concept}")
        where = batch.residuals, batch.is_real
        points = {space.name: module.points(space, *where) for space in (RESIDUALS, LATENTS)}
        add_points(trainer, "case2", batch, **points)

    def close(self, trainer: Trainer, module: Any, rows: Rows) -> None:
        """Draw every metric of all concepts, and print the table."""
        for (protocol,), own in group_rows(rows, "protocol").items():
            figure = metric_panels(f"{module.name}, protocol {protocol}", own)
            path = self.dirpath / file_name("metrics", module.name, protocol)
            show_figure(tensorboard_writer(trainer), figure, path, f"metrics/{protocol}")
        print(summary(clustering_rows(rows)))
