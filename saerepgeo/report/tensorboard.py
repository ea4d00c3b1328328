"""TensorBoard: what its tabs show of a run: settings, curves, tables, images, points by item."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from saerepgeo.report.files import save_figure
from saerepgeo.types import ConceptActivations

OF_RUNS = ("val/mse", "val/relative_aedp")
"""Figures by which the HPARAMS tab compares runs."""
CHARTS = {
    "separability and reconstruction": {
        "mse": ["Multiline", ["train/mse", "val/mse", "val/heldout_items/mse"]],
        "relative AEDP": ["Multiline", ["val/relative_aedp", "val/heldout_items/relative_aedp"]],
        "AEDP": ["Multiline", ["val/aedp", "val/heldout_items/aedp"]],
        "regularizer": ["Multiline", ["train/separability"]],
    }
}
"""The CUSTOM SCALARS tab."""


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, for people who look: runs beside each other, curves beside each other.

    Settings stand beside `OF_RUNS` in the HPARAMS tab, `CHARTS` in CUSTOM SCALARS. A figure of
    `test` is one number and no curve: all of them are a table in the TEXT tab. Lightning's `epoch`,
    which a stream without end has not got, is left out, and so is what is NaN. Arguments are those
    of `lightning.pytorch.loggers.TensorBoardLogger`.
    """

    _has_charts = False

    @rank_zero_only
    def log_hyperparams(
        self, params: Any, metrics: dict[str, Any] | None = None, step: int | None = None
    ) -> None:
        super().log_hyperparams(params, metrics or dict.fromkeys(OF_RUNS, math.nan), step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        figures = {name: value for name, value in values.items() if name.startswith("test/")}
        curves = {name: value for name, value in values.items() if name not in figures}
        if figures:
            lines = [f"| {name.removeprefix('test/')} | {x:.6g} |" for name, x in figures.items()]
            table = "\n".join(["| figure | value |", "|---|---|", *lines])
            self.experiment.add_text("figures of test", table, step)
        if not self._has_charts and not curves.keys().isdisjoint({*OF_RUNS, "train/mse"}):
            self.experiment.add_custom_scalars(CHARTS)
            self._has_charts = True
        super().log_metrics(curves, step)


def tensorboard_writer(trainer: Trainer) -> Any:
    """Return the SummaryWriter of the trainer's TensorBoard logger; None without one."""
    loggers = (each for each in trainer.loggers if isinstance(each, TensorBoardLogger))
    return next((logger.experiment for logger in loggers), None)


def show_figure(writer: Any, figure: Any, path: str | Path, tag: str) -> None:
    """Write a matplotlib figure (see `save_figure`), and show it under `tag`, with a writer."""
    picture = save_figure(figure, path)
    if writer is not None:
        writer.add_image(tag, picture[..., :3], dataformats="HWC")


def add_points(trainer: Trainer, tag: str, batch: ConceptActivations, **spaces: Tensor) -> None:
    """Put the points at the items' mentions into the embedding projector, one set a space.

    `spaces` holds a row for every real position, prompt by prompt. Dimensions that are 0 throughout
    are left out, which changes no distance. Nothing without a TensorBoard logger.
    """
    writer = tensorboard_writer(trainer)
    order = torch.full_like(batch.tokens, -1)
    order[batch.is_real] = torch.arange(int(batch.is_real.sum()), device=order.device)
    rows = order[torch.arange(len(order), device=order.device), batch.item_positions]
    names = [batch.items[int(label)] for label in batch.labels]
    for space, points in spaces.items() if writer is not None else ():
        shown = points[rows]
        shown = shown[:, (shown != 0).any(0)].cpu()
        if shown.numel():
            writer.add_embedding(shown, names, tag=f"{tag}/{batch.concept}/{space}")
