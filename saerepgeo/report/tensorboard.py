"""TensorBoard: figures as images, and points in the embedding projector with their items."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from saerepgeo.types import ConceptActivations


def tensorboard_writer(trainer: Trainer) -> Any:
    """Return the SummaryWriter of the trainer's TensorBoard logger; None without one."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None


def add_figure(writer: Any, tag: str, figure: Any) -> None:
    """Show a matplotlib figure under `tag`; nothing without a writer."""
    if writer is None:
        return
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    writer.add_image(tag, np.asarray(canvas.buffer_rgba())[..., :3].copy(), dataformats="HWC")


def add_points(writer: Any, tag: str, batch: ConceptActivations, **spaces: Tensor | None) -> None:
    """Put the points at the items' mentions into the embedding projector, one set a space.

    `spaces` holds a row for every real position, prompt by prompt. Only the last token of each
    item's mention is shown: one point a prompt, named by its item. Dimensions that are 0 throughout
    are left out, which changes no distance.
    """
    if writer is None:
        return
    order = torch.full_like(batch.tokens, -1)
    order[batch.is_real] = torch.arange(int(batch.is_real.sum()), device=order.device)
    rows = order[torch.arange(len(order), device=order.device), batch.item_positions]
    names = [batch.items[int(label)] for label in batch.labels]
    for space, points in spaces.items():
        if points is None:
            continue
        shown = points[rows]
        shown = shown[:, (shown != 0).any(0)].cpu()
        if shown.numel():
            writer.add_embedding(shown, names, tag=f"{tag}/{batch.concept}/{space}")
