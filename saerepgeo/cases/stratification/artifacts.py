"""What case 1 leaves on disk and in TensorBoard."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from saerepgeo.cases.artifacts import CaseArtifacts, Row
from saerepgeo.cases.spaces import Space
from saerepgeo.cases.stratification.figures import metric_by_noise, rank_figure
from saerepgeo.cases.stratification.table import condition_of, rank_rows, strata, summary
from saerepgeo.report.files import file_name, merge_rows, save_figure, save_tensors
from saerepgeo.report.tensorboard import add_figure, add_points, tensorboard_writer
from saerepgeo.types import ConceptActivations

ROW_KEY = ("model", "concept")
OF_RANKS = ("rank", "effective_rank", "stable_rank", "participation_ratio", "n_rows", "n_active")
LATENTS = Space("latents")


class StratificationArtifacts(CaseArtifacts):
    """Write case 1: rows of a (model, concept) as soon as it is done, figures at the end.

    `rank_by_noise.csv` and `strata.csv` gain or replace the rows of this model and concept;
    `latents_*.safetensors` holds tokens, labels and effective latents by their non-zero entries,
    `spectra_*.safetensors` the singular values of every unfolding. The tensor's entry
    [prompt, position, latent] of non-zero number i is `indices[:, i]`. Latents are those of the
    first SAE.

    Args:
        dirpath: the folder to write.
    """

    def __init__(self, dirpath: str = "outputs/case1_stratified_manifold") -> None:
        super().__init__(dirpath)

    def finish(
        self, trainer: Trainer, module: Any, batch: ConceptActivations, parts: dict[str, Any]
    ) -> None:
        """Write tables, latents and spectra of a concept."""
        stem = file_name(module.name, batch.concept)
        ranks = rank_rows([row for outputs in parts.values() for row in outputs["rows"]])
        merge_rows(self.dirpath / "rank_by_noise.csv", ranks, ROW_KEY)
        merge_rows(self.dirpath / "strata.csv", strata(ranks), ROW_KEY)
        latents = module.latents(batch, LATENTS)
        save_tensors(self.dirpath / f"latents_{stem}.safetensors", _sparse_tensor(latents, batch))
        spectra = {key: v for outputs in parts.values() for key, v in outputs["spectra"].items()}
        save_tensors(self.dirpath / f"spectra_{stem}.safetensors", spectra)
        writer = tensorboard_writer(trainer)
        add_points(writer, "case1", batch, residuals=None, latents=latents)

    def scalars(self, rows: Sequence[Row]) -> list[tuple[str, float, int]]:
        """Return the figures of the first draws by noise, ranks of the feature mode only."""
        found = []
        for row in rows:
            space, condition = condition_of(row["space"])
            name, _, mode_and_rule = row["metric"].partition("/")
            if condition["draw"] or (name in OF_RANKS and not mode_and_rule.startswith("feature")):
                continue
            tag = f"{row['metric']}/{space}/{condition['noise_scale']}/{row['concept']}"
            # TensorBoard's steps are integers: thousandths of the noise level
            found.append((f"by_noise/{tag}", float(row["value"]), round(1000 * condition["noise"])))
        return found

    def close(self, trainer: Trainer, module: Any, rows: list[Row]) -> None:
        """Draw ranks, and every other metric, against noise; print the strata."""
        writer, ranks = tensorboard_writer(trainer), rank_rows(rows)
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in ranks:
            groups.setdefault((row["model"], row["space"], row["tolerance"]), []).append(row)
        figures = {f"rank_by_noise_{file_name(*key)}": rank_figure(g) for key, g in groups.items()}
        others = [row for row in rows if row["metric"].partition("/")[0] not in OF_RANKS]
        for metric in dict.fromkeys(row["metric"] for row in others):
            own = [row for row in others if row["metric"] == metric]
            figures[f"{file_name(metric)}_by_noise"] = metric_by_noise(own)
        for name, figure in figures.items():
            save_figure(figure, self.dirpath / name)
            add_figure(writer, name, figure)
        print(summary(strata(ranks)))


def _sparse_tensor(latents: Tensor, batch: ConceptActivations) -> Mapping[str, Tensor]:
    points, features = latents.nonzero().T
    prompts, positions = batch.is_real.nonzero().T
    return {
        "tokens": batch.tokens,
        "is_real": batch.is_real,
        "labels": batch.labels,
        "item_positions": batch.item_positions,
        "indices": torch.stack([prompts[points], positions[points], features]),
        "values": latents[points, features],
        "shape": torch.tensor([*batch.tokens.shape, latents.shape[1]]),
    }
