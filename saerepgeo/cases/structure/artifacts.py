"""What case 2 leaves on disk and in TensorBoard."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from saerepgeo.cases.structure.figures import (
    cluster_maps,
    dimension_by_scale,
    null_figure,
    tree_maps,
)
from saerepgeo.cases.structure.module import COLUMNS, Structure
from saerepgeo.report.files import (
    file_name,
    merge_rows,
    save_array,
    save_figure,
    save_tensors,
)
from saerepgeo.report.tensorboard import add_figure, add_points, tensorboard_writer
from saerepgeo.types import ConceptActivations

ROW_KEY = ("Concept", "Model", "Protocol")
TABLE = "clustering_analysis_results.csv"


class StructureArtifacts(Callback):
    """Write case 2: rows, cluster labels, residuals and figures of a concept once it is done.

    `clusters_<model>_<concept>_{resid,latents}.npy` holds the labels of the first protocol of the
    run (the paper's, by default: one for every position, BOS and padding included), and
    `…_sound_{resid,latents}.npy` those of `sound`, one for every distinct real position.

    Args:
        dirpath: the folder to write.
    """

    def __init__(self, dirpath: str = "outputs/case2_representation_structure") -> None:
        self.dirpath = Path(dirpath)
        self.rows: list[dict[str, Any]] = []

    @rank_zero_only
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows = []

    @rank_zero_only
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ConceptActivations,
        *_: Any,
    ) -> None:
        result: Structure = outputs["result"]
        self.rows += result.rows
        stem = file_name(result.model, batch.concept)
        self._save_labels(result, stem)
        save_tensors(
            self.dirpath / f"resid_{stem}.safetensors",
            {
                "residuals": batch.residuals,
                "tokens": batch.tokens,
                "is_real": batch.is_real,
                "labels": batch.labels,
                "item_positions": batch.item_positions,
            },
        )
        ordered = [{name: row[name] for name in COLUMNS} | row for row in result.rows]
        merge_rows(self.dirpath / TABLE, ordered, ROW_KEY)
        writer = tensorboard_writer(trainer)
        for name, figure in _figures(result, batch).items():
            save_figure(figure, self.dirpath / f"{name}_{stem}")
            add_figure(writer, f"{name}/{batch.concept}", figure)
        module: Any = pl_module
        residuals = batch.residuals[batch.is_real]
        latents = module.effective_latents(module.sae, batch.residuals, batch.is_real)
        add_points(writer, "case2", batch, residuals=residuals, latents=latents)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        print(summary(self.rows))

    def _save_labels(self, result: Structure, stem: str) -> None:
        for number, (protocol, sides) in enumerate(result.views.items()):
            for side, view in sides.items():
                if number == 0:
                    save_array(self.dirpath / f"clusters_{stem}_{side}.npy", view.clusters)
                if protocol == "sound":
                    save_array(self.dirpath / f"clusters_{stem}_sound_{side}.npy", view.clusters)


def summary(rows: list[dict[str, Any]]) -> str:
    """Return the table of the run as lines of text, with p-values where there are any."""
    names = ("Clusters", "Avg Dim", "Betti0", "MST Weight", "AGD")
    lines = [
        f"{'concept':<16}{'protocol':<26}"
        + "".join(f"{name + ' R→L':>20}" for name in names)
        + f"{'Procrustes (p)':>18}"
    ]
    for row in rows:
        cells = [f"{row[f'{n} Resid']:.4g} → {row[f'{n} Latents']:.4g}" for n in names]
        p = row.get("Procrustes Disparity p")
        last = f"{row['Procrustes Disparity']:.3f}" + (f" ({p:.3f})" if p is not None else "")
        lines.append(
            f"{row['Concept']:<16}{row['Protocol']:<26}"
            + "".join(f"{cell:>20}" for cell in cells)
            + f"{last:>18}"
        )
    return "\n".join(lines)


def _figures(result: Structure, batch: ConceptActivations) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for protocol, views in result.views.items():
        title = f"{result.model}, {batch.concept}, protocol {protocol}"
        figures[f"cluster_map_{protocol}"] = cluster_maps(title, views, batch.items)
    if "sound" in result.views:
        views = result.views["sound"]
        title = f"{result.model}, {batch.concept}"
        figures["item_tree"] = tree_maps(title, views, batch.items)
        figures["dimension_by_scale"] = dimension_by_scale(title, views)
        sound = [row for row in result.rows if row["Protocol"] != "paper"]
        figures["nulls"] = null_figure(title, sound)
    return figures
