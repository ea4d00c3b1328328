"""What case 1 leaves on disk and in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from saerepgeo.cases.stratification.figures import rank_figure
from saerepgeo.cases.stratification.module import Stratification
from saerepgeo.report.files import file_name, merge_rows, save_figure, save_tensors
from saerepgeo.report.tensorboard import add_figure, add_points, tensorboard_writer
from saerepgeo.types import ConceptActivations

ROW_KEY = ("model", "concept")
PRINTED = ("feature", "eps")
"""Mode and rule of the closing summary; `strata.csv` holds all."""


class StratificationArtifacts(Callback):
    """Write case 1: rows of a (model, concept) as soon as it is done, figures at the end.

    `rank_by_noise.csv` and `strata.csv` gain or replace the rows of this model and concept;
    `latents_*.safetensors` holds tokens, labels and effective latents by their non-zero entries,
    `spectra_*.safetensors` the singular values of every unfolding. The tensor's entry
    [prompt, position, latent] of non-zero number i is `indices[:, i]`.

    Args:
        dirpath: the folder to write.
    """

    def __init__(self, dirpath: str = "outputs/case1_stratified_manifold") -> None:
        self.dirpath = Path(dirpath)
        self.rows: list[dict[str, Any]] = []
        self.strata: list[dict[str, Any]] = []

    @rank_zero_only
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows, self.strata = [], []

    @rank_zero_only
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ConceptActivations,
        *_: Any,
    ) -> None:
        result: Stratification = outputs["result"]
        self.rows += result.rows
        self.strata += result.strata
        stem = file_name(result.model, batch.concept)
        save_tensors(self.dirpath / f"latents_{stem}.safetensors", _sparse_tensor(result, batch))
        save_tensors(self.dirpath / f"spectra_{stem}.safetensors", result.spectra)
        merge_rows(self.dirpath / "rank_by_noise.csv", result.rows, ROW_KEY)
        merge_rows(self.dirpath / "strata.csv", result.strata, ROW_KEY)
        writer = tensorboard_writer(trainer)
        if writer is None:
            return
        for row in result.rows:
            if row["mode"] == "feature" and row["draw"] == 0:
                about = f"{row['space']}/{row['noise_scale']}/{row['tolerance']}/{batch.concept}"
                # TensorBoard's steps are integers: thousandths of the noise level
                step = round(1000 * row["noise"])
                writer.add_scalar(f"rank_by_noise/{about}", row["rank"], step)
        add_points(writer, "case1", batch, residuals=None, latents=result.latents)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer = tensorboard_writer(trainer)
        groups = dict.fromkeys((r["model"], r["space"], r["tolerance"]) for r in self.rows)
        for model, space, tolerance in groups:
            chosen = [
                row
                for row in self.rows
                if (row["model"], row["space"], row["tolerance"]) == (model, space, tolerance)
            ]
            figure = rank_figure(chosen)
            stem = file_name(model, space, tolerance)
            save_figure(figure, self.dirpath / f"rank_by_noise_{stem}")
            add_figure(writer, f"rank_by_noise/{space}/{tolerance}", figure)
        print(summary(self.strata))


def summary(strata: list[dict[str, Any]]) -> str:
    """Return the ranks of the points × latents matrix over the noise levels, as lines of text."""
    mode, rule = PRINTED
    lines = [f"ranks visited over noise levels (mode {mode}, tolerance {rule}):"]
    for row in strata:
        if (row["mode"], row["tolerance"]) != (mode, rule):
            continue
        lines.append(
            f"  {row['concept']:<16}{row['space']:<10}{row['noise_scale']:<9} "
            f"{row['n_strata']:>3} strata, rank {row['rank_min']}–{row['rank_max']}, "
            f"sd over levels {row['sd_levels']:.1f}, over draws {row['sd_draws']:.1f}"
        )
    return "\n".join(lines)


def _sparse_tensor(result: Stratification, batch: ConceptActivations) -> Mapping[str, torch.Tensor]:
    points, features = result.latents.nonzero().T
    prompts, positions = batch.is_real.nonzero().T
    return {
        "tokens": batch.tokens,
        "is_real": batch.is_real,
        "labels": batch.labels,
        "item_positions": batch.item_positions,
        "indices": torch.stack([prompts[points], positions[points], features]),
        "values": result.latents[points, features],
        "shape": torch.tensor([*batch.tokens.shape, result.latents.shape[1]]),
    }
