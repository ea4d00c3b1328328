"""What case 2 leaves on disk and in TensorBoard."""

from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch import Tensor

from saerepgeo.cases.artifacts import CaseArtifacts, Row
from saerepgeo.cases.spaces import RESIDUALS, Space
from saerepgeo.cases.structure.figures import cluster_maps, dimension_by_scale, tree_maps
from saerepgeo.cases.structure.table import COLUMNS, clustering_rows, summary
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.dimension import ScaleCurve, gride
from saerepgeo.report.files import file_name, merge_rows, save_array, save_figure, save_tensors
from saerepgeo.report.metric_panels import metric_panels
from saerepgeo.report.tensorboard import add_figure, add_points, tensorboard_writer
from saerepgeo.types import ConceptActivations, Float, Int

TABLE = "clustering_analysis_results.csv"
MIN_CLUSTER_SIZE = 10
"""Of the clusters in maps and label files."""


class SpaceView(NamedTuple):
    """One space as figures show it."""

    points: Float[Tensor, "point dim"]
    clusters: Int[Tensor, "point"]
    """HDBSCAN's, −1 for noise."""
    items: Int[Tensor, "point"]
    """−1 where no item has been named yet."""
    mentions: Int[Tensor, "point"]
    """The item at the last token of its mention, elsewhere −1."""
    scales: ScaleCurve | None


class StructureArtifacts(CaseArtifacts):
    """Write case 2: rows, cluster labels, residuals and figures of a concept once it is done.

    `clustering_analysis_results.csv` is the long table in the paper's shape.
    `clusters_<model>_<concept>_{resid,latents}.npy` holds the labels of the first protocol of the
    run (the paper's, by default: one for every position, BOS and padding included), and
    `…_sound_{resid,latents}.npy` those of `sound`, one for every distinct real position. Maps and
    labels are those of the first SAE.

    Args:
        dirpath: the folder to write.
    """

    def __init__(self, dirpath: str = "outputs/case2_representation_structure") -> None:
        super().__init__(dirpath)

    def finish(
        self, trainer: Trainer, module: Any, batch: ConceptActivations, parts: dict[str, Any]
    ) -> None:
        """Write tables, labels, residuals and maps of a concept."""
        stem = file_name(module.name, batch.concept)
        rows = [row for outputs in parts.values() for row in outputs["rows"]]
        merge_rows(self.dirpath / TABLE, clustering_rows(rows), COLUMNS[:3])
        columns = ("residuals", "tokens", "is_real", "labels", "item_positions")
        tensors = {name: getattr(batch, name) for name in columns}
        save_tensors(self.dirpath / f"resid_{stem}.safetensors", tensors)
        views: dict[str, dict[str, SpaceView]] = {}
        for outputs in parts.values():
            side = {RESIDUALS: "resid", Space("latents"): "latents"}.get(outputs["space"])
            if side is not None:
                protocol = outputs["protocol"]
                view = _view(outputs["cloud"], protocol == "sound")
                views.setdefault(protocol, {})[side] = view
        self._save_labels(views, stem)
        writer = tensorboard_writer(trainer)
        title = f"{module.name}, {batch.concept}"
        for name, figure in _figures(title, views, batch.items).items():
            save_figure(figure, self.dirpath / f"{name}_{stem}")
            add_figure(writer, f"{name}/{batch.concept}", figure)
        residuals = batch.residuals[batch.is_real]
        latents = module.effective_latents(Space("latents"), batch.residuals, batch.is_real)
        add_points(writer, "case2", batch, residuals=residuals, latents=latents)

    def close(self, trainer: Trainer, module: Any, rows: list[Row]) -> None:
        """Draw every metric of all concepts, and print the table."""
        for protocol in dict.fromkeys(row["protocol"] for row in rows):
            own = [row for row in rows if row["protocol"] == protocol]
            figure = metric_panels(f"{module.name}, protocol {protocol}", own)
            save_figure(figure, self.dirpath / file_name("metrics", module.name, protocol))
            add_figure(tensorboard_writer(trainer), f"metrics/{protocol}", figure)
        print(summary(clustering_rows(rows)))

    def _save_labels(self, views: dict[str, dict[str, SpaceView]], stem: str) -> None:
        for number, (protocol, sides) in enumerate(views.items()):
            for side, view in sides.items():
                if number == 0:
                    save_array(self.dirpath / f"clusters_{stem}_{side}.npy", view.clusters)
                if protocol == "sound":
                    save_array(self.dirpath / f"clusters_{stem}_sound_{side}.npy", view.clusters)


def _view(cloud: LabeledCloud, has_scales: bool) -> SpaceView:
    clusters = cloud.clusters(MIN_CLUSTER_SIZE).cpu()
    scales = gride(cloud.cloud) if has_scales else None
    return SpaceView(cloud.points, clusters, cloud.named, cloud.labels, scales)


def _figures(
    title: str, views: dict[str, dict[str, SpaceView]], items: tuple[str, ...]
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        f"cluster_map_{protocol}": cluster_maps(f"{title}, protocol {protocol}", sides, items)
        for protocol, sides in views.items()
    }
    if "sound" in views:
        figures["item_tree"] = tree_maps(title, views["sound"], items)
        figures["dimension_by_scale"] = dimension_by_scale(title, views["sound"])
    return figures
