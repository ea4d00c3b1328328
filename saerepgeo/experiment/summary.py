"""The results of an experiment: one table of all cells, verdicts, contrasts and figures."""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from saerepgeo.cases.intervention.paper_statistic import paper_statistic
from saerepgeo.experiment.grid import Experiment
from saerepgeo.experiment.verdict import Verdict, control_contrasts, judge
from saerepgeo.files import write_json
from saerepgeo.report.files import read_rows, save_figure, write_rows

ENDPOINTS = ("heldout_items", "text")
"""Splits on which the verdict measures the error: the first is the primary one."""
FIGURES = ("relative_aedp", "fisher_ratio", "aedp", "mse", "relative_reconstruction_bias")


def summarize(experiment: Experiment) -> str:
    """Write finetune_results.csv, verdicts, contrasts and figures; return the verdict in words.

    Verdicts are of the cells that are finished; unfinished ones are counted in the text.
    """
    folder = Path(experiment.output)
    rows = _rows(experiment)
    write_rows(folder / "finetune_results.csv", rows)
    verdicts = [
        verdict
        for split in ENDPOINTS
        for verdict in judge(rows, experiment.separability, experiment.error, split)
    ]
    write_rows(folder / "verdicts.csv", [verdict.as_row() for verdict in verdicts])
    contrasts = control_contrasts(rows, FIGURES)
    write_rows(folder / "contrasts.csv", contrasts)
    on_latents = folder / "intervention_analysis_results_icd_monge.csv"
    paper = paper_statistic(read_rows(on_latents)) if on_latents.is_file() else []
    write_json(folder / "verdict.json", _record(experiment, verdicts, paper))
    _draw(folder, rows, experiment)
    return _in_words(experiment, verdicts, contrasts, paper)


def _rows(experiment: Experiment) -> list[dict[str, Any]]:
    """Return the rows of all finished cells, in the order of the grid."""
    paths = [experiment.result_path(cell) for cell in experiment.finished]
    return [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def _record(experiment: Experiment, verdicts: list[Verdict], paper: Any) -> dict[str, Any]:
    return {
        "n_cells": len(experiment.cells),
        "n_finished": len(experiment.finished),
        "primary_endpoint": f"{experiment.error}/{ENDPOINTS[0]}",
        "separability": f"{experiment.separability}/heldout_items",
        "verdicts": [verdict.as_row() for verdict in verdicts],
        "paper_protocol": paper,
    }


def _in_words(
    experiment: Experiment,
    verdicts: list[Verdict],
    contrasts: list[dict[str, Any]],
    paper: list[dict[str, Any]],
) -> str:
    lines = []
    for endpoint, rank in zip(ENDPOINTS, ("primary", "secondary"), strict=True):
        lines.append(
            f"Does separability ({experiment.separability}) move {experiment.error} on "
            f"{endpoint}? ({rank})"
        )
        of_endpoint = [v for v in verdicts if v.error.endswith(f"/{endpoint}")]
        lines += [f"  {verdict.sentence}" for verdict in of_endpoint]
    lines += shuffled_lines(contrasts, experiment.error)
    lines += [f"The paper's statistic: {entry['sentence']}" for entry in paper]
    lines.append(f"Tables and figures are in {experiment.output}")
    return "\n".join(lines)


def shuffled_lines(contrasts: list[dict[str, Any]], error: str) -> list[str]:
    """Return a sentence for each dose that was run with shuffled labels as well.

    A regularizer that moves the error as far with meaningless labels moves it by something else
    than the separability of the items, by longer latents for instance.
    """
    changes: dict[tuple[str, float], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in contrasts:
        if (row["split"], row["figure"], row["against"]) == (ENDPOINTS[0], error, "dose 0"):
            changes[row["regularizer"], row["dose"]][row["labels"]].append(row["difference"])
    lines = []
    for (regularizer, dose), arms in changes.items():
        if {"given", "shuffled"} <= arms.keys():
            given, shuffled = (statistics.mean(arms[name]) for name in ("given", "shuffled"))
            lines.append(
                f"Control: {regularizer} at λ = {dose:+g} changes log {error} on {ENDPOINTS[0]} by "
                f"{given:+.3f} with true labels, by {shuffled:+.3f} with shuffled ones"
            )
    return lines


def _draw(folder: Path, rows: list[dict[str, Any]], experiment: Experiment) -> None:
    from torch.utils.tensorboard import SummaryWriter

    from saerepgeo.experiment.figures import dose_response_figure, pareto_figure
    from saerepgeo.report.tensorboard import add_figure

    figures = {
        "dose_response": dose_response_figure(rows, experiment.separability, experiment.error),
        "pareto": pareto_figure(rows, experiment.separability),
    }
    writer = SummaryWriter(str(folder / "tensorboard"))
    for name, figure in figures.items():
        save_figure(figure, folder / name)
        add_figure(writer, f"experiment/{name}", figure)
    writer.close()
