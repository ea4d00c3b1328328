"""What cases 1 and 2 leave on disk and in TensorBoard: the long table first, the rest from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from saerepgeo.report.files import merge_rows
from saerepgeo.report.results import KEY, RESULTS, read_results
from saerepgeo.report.tensorboard import tensorboard_writer
from saerepgeo.types import AnalysisBatch, ConceptActivations

Row = dict[str, Any]


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
        self.rows: list[Row] = []
        """Of the finished concepts of this process."""
        self._parts: dict[str, Any] = {}

    def finish(
        self, trainer: Trainer, module: Any, batch: ConceptActivations, parts: dict[str, Any]
    ) -> None:
        """Write what belongs to one concept, from what each of its parts returned."""

    def close(self, trainer: Trainer, module: Any, rows: list[Row]) -> None:
        """Write what is about all concepts of the run; on the first process only."""

    def scalars(self, rows: Sequence[Row]) -> list[tuple[str, float, int]]:
        """Return tag, value and step of the rows in TensorBoard."""
        return [
            (
                f"test/{row['protocol']}/{row['space']}/{row['metric']}/{row['concept']}",
                float(row["value"]),
                0,
            )
            for row in rows
            if not row["metric"].endswith(("/tested", "/beside_random"))
        ]

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows, self._parts = [], {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: AnalysisBatch,
        *_: Any,
    ) -> None:
        module: Any = pl_module
        self._parts[batch.part] = outputs
        if batch.part != module.parts[-1]:
            return
        parts, self._parts = self._parts, {}
        self.rows += self._write(parts)
        self.finish(trainer, module, batch.activations, parts)

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
        parts, self._parts = self._parts, {}
        self._write(parts)

    def _write(self, parts: dict[str, Any]) -> list[Row]:
        rows = [row for outputs in parts.values() for row in outputs["rows"]]
        merge_rows(self.dirpath / RESULTS, rows, KEY)
        return rows

    def _rows_of_all(self, trainer: Trainer) -> list[Row]:
        """Return the rows that all processes have written in this run."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = trainer.lightning_module
        names = set(data.prompts.names)
        return [
            row
            for row in read_results(self.dirpath / RESULTS)
            if row["model"] == module.name and row["concept"] in names
        ]
