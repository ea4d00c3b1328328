"""SIGINT and SIGTERM: finish the step, leave a checkpoint, say how to go on."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(Callback):
    """On SIGINT or SIGTERM save `last.ckpt` after the step in progress and stop.

    The same signal a second time ends the process at once, as it would without this callback.
    With several processes one signalled process stops all of them at the same step.

    Args:
        dirpath: folder of the checkpoint, the one of `ModelCheckpoint`.

    Attributes:
        received: number of the signal that came, else None; `128 + received` is the exit status.
    """

    def __init__(self, dirpath: str) -> None:
        self.dirpath = Path(dirpath)
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not self._anyone_received(trainer):
            return
        path = self.dirpath / "last.ckpt"
        trainer.save_checkpoint(path)
        trainer.should_stop = True
        rank_zero_info(
            f"interrupted after step {trainer.global_step}; continue with --ckpt_path {path}"
        )

    def _anyone_received(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return self.received is not None
        flag = torch.tensor(float(self.received is not None), device=trainer.strategy.root_device)
        total = trainer.strategy.reduce(flag, reduce_op="sum")
        if float(total) > 0 and self.received is None:
            self.received = int(signal.SIGTERM)
        return float(total) > 0

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()


def exit_status(trainer: Trainer) -> int:
    """Return 128 + the signal that stopped `trainer`, else 0."""
    found = [c.received for c in trainer.callbacks if isinstance(c, Interruption)]  # type: ignore[attr-defined]
    return next((128 + number for number in found if number is not None), 0)
