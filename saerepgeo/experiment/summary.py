"""The results of an experiment: one table of all cells, verdicts, contrasts and figures."""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from saerepgeo.cases.intervention.paper_statistics import paper_statistic
from saerepgeo.experiment.cells import ITEMS, TEXT, Cell
from saerepgeo.experiment.grid import Experiment
from saerepgeo.experiment.verdict import control_contrasts, judge
from saerepgeo.files import write_json
from saerepgeo.report.files import read_rows, write_rows

ENDPOINTS = {ITEMS: "primary", TEXT: "secondary"}
"""Splits on which the verdict measures the error, and their rank."""
FIGURES = ("relative_aedp", "fisher_ratio", "aedp", "mse", "relative_reconstruction_bias")


def summarize(experiment: Experiment) -> str:
    """Write finetune_results.csv, verdicts, contrasts and figures; return the verdict in words.

    Verdicts are of the cells that are finished; unfinished ones are counted in the text.
    """
    folder, finished = experiment.output.rstrip("/"), experiment.finished
    separability, error = experiment.separability, experiment.error
    rows = _all_rows(experiment, finished)
    write_rows(f"{folder}/finetune_results.csv", rows)
    verdicts, lines = [], []
    for split, rank in ENDPOINTS.items():
        found = judge(rows, separability, error, split)
        verdicts += [verdict.as_row() for verdict in found]
        lines.append(f"Does separability ({separability}) move {error} on {split}? ({rank})")
        lines += [f"  {verdict.sentence}" for verdict in found]
    write_rows(f"{folder}/verdicts.csv", verdicts)
    contrasts = control_contrasts(rows, FIGURES)
    write_rows(f"{folder}/contrasts.csv", contrasts)
    on_latents = f"{folder}/intervention_analysis_results_icd_monge.csv"
    paper = paper_statistic(read_rows(on_latents)) if Path(on_latents).is_file() else []
    record = {
        "n_cells": len(experiment.cells),
        "n_finished": len(finished),
        "primary_endpoint": f"{error}/{ITEMS}",
        "separability": f"{separability}/{ITEMS}",
        "verdicts": verdicts,
        "paper_protocol": paper,
    }
    write_json(f"{folder}/verdict.json", record)
    _draw(folder, rows, separability, error)
    lines += shuffled_lines(contrasts, error)
    lines += [f"The paper's statistic: {entry['sentence']}" for entry in paper]
    return "\n".join([*lines, f"Tables and figures are in {experiment.output}"])


def _all_rows(experiment: Experiment, cells: list[Cell]) -> list[dict[str, Any]]:
    """Return the rows of `cells`; ValueError where one lacks some that others of its seed have."""
    by_cell = {cell: experiment.rows(cell) for cell in cells}
    of_seed: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for cell, rows in by_cell.items():
        of_seed[cell.seed] |= {(row["split"], row["concept"]) for row in rows}
    for cell, rows in by_cell.items():
        if lacking := of_seed[cell.seed] - {(row["split"], row["concept"]) for row in rows}:
            raise ValueError(
                f"{experiment.result_path(cell)} lacks what other cells of its seed hold, "
                f"{' of '.join(min(lacking)[::-1])}: delete it and run again"
            )
    return [row for rows in by_cell.values() for row in rows]


def shuffled_lines(contrasts: list[dict[str, Any]], error: str) -> list[str]:
    """Return a sentence for each dose that was run with shuffled labels as well.

    A regularizer that moves the error as far with meaningless labels moves it by something else
    than the separability of the items, by longer latents for instance.
    """
    changes: dict[tuple[str, float, str], list[float]] = defaultdict(list)
    for row in contrasts:
        if (row["split"], row["figure"], row["against"]) == (ITEMS, error, "dose 0"):
            changes[row["regularizer"], row["dose"], row["labels"]].append(row["difference"])
    means = {arm: statistics.mean(differences) for arm, differences in changes.items()}
    lines = []
    for (regularizer, dose, labels), given in means.items():
        shuffled = means.get((regularizer, dose, "shuffled"))
        if labels == "given" and shuffled is not None:
            lines.append(
                f"Control: {regularizer} at λ = {dose:+g} changes log {error} on {ITEMS} by "
                f"{given:+.3f} with true labels, by {shuffled:+.3f} with shuffled ones"
            )
    return lines


def _draw(folder: str, rows: list[dict[str, Any]], separability: str, error: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    from saerepgeo.experiment.figures import dose_response_figure, pareto_figure
    from saerepgeo.report.tensorboard import show_figure

    figures = {
        "dose_response": dose_response_figure(rows, separability, error),
        "pareto": pareto_figure(rows, separability),
    }
    with SummaryWriter(f"{folder}/tensorboard") as writer:
        for name, figure in figures.items():
            show_figure(writer, figure, f"{folder}/{name}", f"experiment/{name}")
