"""What case 1 leaves on disk and in TensorBoard."""

from collections import defaultdict
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from saerepgeo.cases.artifacts import PLACES, CaseArtifacts, Rows
from saerepgeo.cases.spaces import LATENTS
from saerepgeo.cases.stratification.table import condition_of, rank_rows, strata, summary
from saerepgeo.geometry.unfoldings import MODES
from saerepgeo.report.files import file_name, merge_rows, save_tensors
from saerepgeo.report.palette import line_style, new_figure
from saerepgeo.report.results import group_rows
from saerepgeo.report.tensorboard import add_points, show_figure, tensorboard_writer
from saerepgeo.types import ConceptActivations

ROW_KEY = ("model", "concept")
OF_RANKS = ("rank", "effective_rank", "stable_rank", "participation_ratio", "n_rows", "n_active")
SPACE_NAMES = {
    "residuals": "residuals",
    "latents": "effective latents",
    "random": "effective latents of a random dictionary",
}
UNITS = {
    "absolute": "noise (standard deviation, units of the residuals)",
    "relative": "noise (standard deviation, share of the residuals' root mean square)",
}


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
        self, trainer: Trainer, module: Any, batch: ConceptActivations, parts: Rows, rows: Rows
    ) -> None:
        """Write tables, latents and spectra of a concept."""
        stem, ranks = file_name(module.name, batch.concept), rank_rows(rows)
        merge_rows(self.dirpath / "rank_by_noise.csv", ranks, ROW_KEY)
        merge_rows(self.dirpath / "strata.csv", strata(ranks), ROW_KEY)
        latents = module.clean(batch, LATENTS)
        save_tensors(self.dirpath / f"latents_{stem}.safetensors", _sparse_tensor(latents, batch))
        spectra = {key: v for outputs in parts for key, v in outputs["spectra"].items()}
        save_tensors(self.dirpath / f"spectra_{stem}.safetensors", spectra)
        add_points(trainer, "case1", batch, latents=latents)

    def scalars(self, rows: Rows) -> list[tuple[str, float, int]]:
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

    def close(self, trainer: Trainer, module: Any, rows: Rows) -> None:
        """Draw ranks, and every other metric, against noise; print the strata."""
        ranks = group_rows(rank_rows(rows), "model", "space", "tolerance")
        others = [row for row in rows if row["metric"].partition("/")[0] not in OF_RANKS]
        figures = {f"rank_by_noise_{file_name(*key)}": rank_figure(g) for key, g in ranks.items()}
        for (metric,), own in group_rows(others, "metric").items():
            figures[f"{file_name(metric)}_by_noise"] = metric_by_noise(own)
        for name, figure in figures.items():
            show_figure(tensorboard_writer(trainer), figure, self.dirpath / name, name)
        print(summary(strata(rank_rows(rows))))


def _sparse_tensor(latents: Tensor, batch: ConceptActivations) -> dict[str, Tensor]:
    points, features = latents.nonzero().T
    prompts, positions = batch.is_real.nonzero().T
    return {
        **{name: getattr(batch, name) for name in PLACES},
        "indices": torch.stack([prompts[points], positions[points], features]),
        "values": latents[points, features],
        "shape": torch.tensor([*batch.tokens.shape, latents.shape[1]]),
    }


def rank_figure(rows: Rows) -> Any:
    """Return the figure of one model, space and rule: modes in rows, noise scales in columns."""
    panels = {f"rank, {mode} mode": [r for r in rows if r["mode"] == mode] for mode in MODES}
    first = rows[0]
    title = f"{first['model']}: {SPACE_NAMES.get(first['space'], first['space'])}"
    return _figure(f"{title}, tolerance {first['tolerance']}", panels, "rank")


def metric_by_noise(rows: Rows) -> Any:
    """Return the figure of a metric of the long table: spaces in rows, scales in columns."""
    panels: dict[str, Rows] = defaultdict(list)
    for row in rows:
        space, condition = condition_of(row["space"])
        panels[f"{space} {row['sae']}".strip()].append({**row, **condition, "n_points": row["n"]})
    return _figure(f"{rows[0]['model']}: {rows[0]['metric']}", panels, "value")


def _figure(title: str, panels: dict[str, Rows], column: str) -> Any:
    rows = [row for own in panels.values() for row in own]
    scales = list(dict.fromkeys(row["noise_scale"] for row in rows))
    figure = new_figure(5.2 * len(scales), 2.8 * len(panels))
    axes = figure.subplots(len(panels), len(scales), squeeze=False, sharex="col", sharey="row")
    for axes_of_row, (name, own) in zip(axes, panels.items(), strict=True):
        axes_of_row[0].set_ylabel(name)
        for axis, scale in zip(axes_of_row, scales, strict=True):
            _draw(axis, [row for row in own if row["noise_scale"] == scale], column)
    for axis, scale in zip(axes[-1], scales, strict=True):
        axis.set_xlabel(UNITS[scale], fontsize=8)
    n_draws = 1 + max(row["draw"] for row in rows)
    bands = f"lines: mean of {n_draws} draws; bands: least to largest"
    figure.suptitle(f"{title}\n{bands}", fontsize=10)
    handles, labels = axes[-1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw(axis: Any, rows: Rows, column: str) -> None:
    for number, ((concept,), own) in enumerate(group_rows(rows, "concept").items()):
        draws = group_rows(own, "noise")
        levels = sorted(level for (level,) in draws)
        values = [[row[column] for row in draws[level,]] for level in levels]
        style, label = line_style(number), f"{concept} (n = {own[0]['n_points']})"
        axis.plot(levels, [fmean(of_level) for of_level in values], label=label, **style)
        band = [min(v) for v in values], [max(v) for v in values]
        axis.fill_between(levels, *band, color=style["color"], alpha=0.2, linewidth=0)
    positive = [row["noise"] for row in rows if row["noise"] > 0]
    if positive:
        axis.set_xscale("symlog", linthresh=min(positive))
    axis.set_ylim(bottom=0)
