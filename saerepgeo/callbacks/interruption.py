"""SIGINT and SIGTERM: finish the step, leave what is done on disk, say how to go on."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from saerepgeo.callbacks.processes import SIGNALS, is_child
from saerepgeo.sae.parallel.collectives import DelayedMaximum, is_distributed


class Interruption(Callback):
    """On SIGINT or SIGTERM save `last.ckpt` in `dirpath` after the step in progress and stop.

    The same signal a second time ends the process at once, as it would without this callback.
    With several processes a signal to one of them stops all after the next step: each tells the
    others of every step, an integer from host to host while the next step is computed, which no
    device and no process waits for. `fit` needs `dirpath`, the folder of `ModelCheckpoint`. `test`
    stops between two steps and saves nothing: what the steps before found stays. The exit status
    is `128 + received`, the signal that came.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = Path(dirpath) if dirpath is not None else None
        self.received: int | None = None
        self._n_finished, self._is_said = 0, False
        self._previous: dict[int, Any] = {}
        self._of_all: DelayedMaximum | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None and stage == "fit":
            raise ValueError("Interruption needs `dirpath` in `fit`: the folder of the checkpoints")
        # of before Lightning's, which ends a run with status 0 where it has not begun to train
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}

    def on_sanity_check_start(self, *_: Any) -> None:
        self._restore()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(self._restore)
        self._of_all = DelayedMaximum() if is_distributed() else None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._n_finished = 0
        self._listen(lambda: [signal.signal(number, signal.SIG_DFL) for number in SIGNALS])

    def _listen(self, step_aside: Callable[[], Any]) -> None:
        """Note the first signal; `step_aside` then takes off what noted it."""

        def note(number: int, frame: FrameType | None) -> None:
            self.received = number
            step_aside()

        for number in SIGNALS:
            signal.signal(number, note)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        received = self.received or 0
        if not (received if self._of_all is None else self._of_all.exchange(received)):
            return
        assert self.dirpath is not None
        path, step = self.dirpath / "last.ckpt", trainer.global_step
        trainer.save_checkpoint(path)
        trainer.should_stop = True
        self._is_said = True
        rank_zero_info(f"interrupted after step {step}; continue with --ckpt_path {path}")

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.received is None:
            return
        self._restore()
        name, kept = signal.Signals(self.received).name, f"{self._n_finished} finished steps"
        print(f"stopped by {name}; what {kept} found is kept", file=sys.stderr)
        raise SystemExit(128 + self.received)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._n_finished += 1

    def on_train_end(self, *_: Any) -> None:
        if self._of_all is not None:
            self._of_all.exchange(self.received or 0)
            self.received = self._of_all.close() or self.received
            self._of_all = None
        if self.received is not None and not self._is_said:
            name = signal.Signals(self.received).name
            rank_zero_info(f"{name} came after the last step: the end is written all the same")
        self._restore()  # Lightning takes its own handlers off before `teardown`: put back after
        # that, they would keep this trainer, its model and its optimizer alive in the process

    def on_test_end(self, *_: Any) -> None:
        self._restore()

    def on_exception(self, *_: Any) -> None:
        self._restore()


def exit_status(trainer: Trainer) -> int:
    """Return 128 + the signal that stopped `trainer`, else 2 where an SAE was left out, else 0.

    Where the first process says it the others return 0.
    """
    if is_child():
        return 0
    found = [c.received for c in trainer.callbacks if isinstance(c, Interruption)]  # type: ignore[attr-defined]
    left_out = getattr(trainer.lightning_module, "left_out", ())
    return next((128 + number for number in found if number is not None), 2 if left_out else 0)
