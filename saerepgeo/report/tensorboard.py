"""TensorBoard: figures as images, and points in the embedding projector with their items."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from saerepgeo.report.files import save_figure
from saerepgeo.types import ConceptActivations


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
