"""What cases 1 and 2 leave on disk and in TensorBoard: the long table first, the rest from it."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from saerepgeo.files import check_folder
from saerepgeo.report.files import merge_rows
from saerepgeo.report.results import ASIDES, KEY, RESULTS, read_results
from saerepgeo.report.tensorboard import tensorboard_writer
from saerepgeo.types import AnalysisBatch, ConceptActivations

Row = dict[str, Any]
Rows = list[Row]
PLACES = ("tokens", "is_real", "labels", "item_positions")
"""Columns of a concept that say what its points are."""


class CaseArtifacts(Callback):
    """Write `results.csv`, rows of a concept as soon as its last part is done.

    A process writes the rows of its own concepts; the first one draws what is about all of them.
    When a run is stopped, the rows of a concept that is not finished are written as well. Every
    metric gives its rows and, from them, its scalars and a panel of a figure.

    Args:
        dirpath: the folder to write.
    """

    def __init__(self, dirpath: str) -> None:
        self.dirpath = Path(dirpath)
        self.rows: Rows = []
        """Of the finished concepts of this process."""
        self._parts: Rows = []

    def finish(
        self, trainer: Trainer, module: Any, batch: ConceptActivations, parts: Rows, rows: Rows
    ) -> None:
        """Write what belongs to one concept: what the step returned of each part, and all rows."""

    def close(self, trainer: Trainer, module: Any, rows: Rows) -> None:
        """Write what is about all concepts of the run; on the first process only."""

    def scalars(self, rows: Rows) -> list[tuple[str, float, int]]:
        """Return tag, value and step of the rows in TensorBoard."""
        columns = ("protocol", "space", "metric", "concept")
        return [
            ("/".join(["test", *(row[name] for name in columns)]), float(row["value"]), 0)
            for row in rows
            if not row["metric"].endswith(ASIDES)
        ]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_folder(self.dirpath)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows, self._parts = [], []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: AnalysisBatch, *_: Any
    ) -> None:
        self._parts.append(outputs)
        if batch.part == pl_module.parts[-1]:
            parts, rows = self._parts, self._write()
            self.rows += rows
            self.finish(trainer, pl_module, batch.activations, parts, rows)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        rows = self.rows if trainer.world_size == 1 else self._rows_of_all(trainer)
        writer = tensorboard_writer(trainer)
        for tag, value, step in self.scalars(rows) if writer is not None else ():
            writer.add_scalar(tag.replace(" ", "_"), value, step)
        self.close(trainer, pl_module, rows)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._write()

    def _write(self) -> Rows:
        rows = [row for outputs in self._parts for row in outputs["rows"]]
        self._parts = []
        merge_rows(self.dirpath / RESULTS, rows, KEY)
        return rows

    def _rows_of_all(self, trainer: Any) -> Rows:
        """Return the rows that all processes have written in this run."""
        model, concepts = trainer.lightning_module.name, set(trainer.datamodule.prompts.names)
        rows = read_results(self.dirpath / RESULTS)
        return [row for row in rows if row["model"] == model and row["concept"] in concepts]
