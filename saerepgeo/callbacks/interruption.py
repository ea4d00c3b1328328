"""SIGINT and SIGTERM: finish the step, leave what is done on disk, say how to go on."""

import signal
import sys
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

    In `test` there is nothing to save: it stops between two steps, what the steps before it found
    stays, and the exit status is 128 + the signal as well.

    Args:
        dirpath: folder of the checkpoint, the one of `ModelCheckpoint`; `fit` needs it.

    Attributes:
        received: number of the signal that came, else None; `128 + received` is the exit status.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = Path(dirpath) if dirpath is not None else None
        self._n_finished = 0
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.dirpath is None:
            raise ValueError("Interruption needs `dirpath` in `fit`: the folder of the checkpoints")
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
        assert self.dirpath is not None
        path = self.dirpath / "last.ckpt"
        trainer.save_checkpoint(path)
        trainer.should_stop = True
        rank_zero_info(
            f"interrupted after step {trainer.global_step}; continue with --ckpt_path {path}"
        )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._n_finished = 0
        self._previous = {number: signal.signal(number, self._note_once) for number in SIGNALS}

    def _note_once(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._stop_test()

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._n_finished += 1

    def _stop_test(self) -> None:
        if self.received is None:
            return
        self._restore()
        name = signal.Signals(self.received).name
        print(
            f"stopped by {name}; what {self._n_finished} finished steps found is kept",
            file=sys.stderr,
        )
        raise SystemExit(128 + self.received)

    def _anyone_received(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return self.received is not None
        flag = torch.tensor(float(self.received is not None), device=trainer.strategy.root_device)
        total = trainer.strategy.reduce(flag, reduce_op="sum")
        if float(total) > 0 and self.received is None:
            self.received = int(signal.SIGTERM)
        return float(total) > 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()  # Lightning takes its own handlers off before `teardown`: put back after
        # that, they would keep this trainer, its model and its optimizer alive in the process

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._restore()


def exit_status(trainer: Trainer) -> int:
    """Return 128 + the signal that stopped `trainer`, else 0."""
    found = [c.received for c in trainer.callbacks if isinstance(c, Interruption)]  # type: ignore[attr-defined]
    return next((128 + number for number in found if number is not None), 0)
