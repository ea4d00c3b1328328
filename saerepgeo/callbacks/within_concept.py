"""The progress bar of `test` moves within a concept as well: draws done, of all its draws."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from saerepgeo.cases.analysis import Stage

__all__ = ["WithinConcept"]

INTERVAL = 0.25
"""Seconds between two updates, about."""


class WithinConcept(Callback):
    """Write what is being computed, and which share of its draws is done, beside the bar.

    Hears of every draw by `on_analysis_step`; silent without a progress bar.
    """

    def __init__(self) -> None:
        self._last = 0.0

    def on_analysis_step(self, trainer: Trainer, stage: Stage) -> None:
        """Show the stage, unless it was shown a moment ago."""
        now = time.monotonic()
        if stage.done and now - self._last < INTERVAL:
            return
        self._last = now
        share = stage.done / max(stage.n_steps, 1)
        describe(trainer.progress_bar_callback, f"{stage.what} {share:4.0%}")

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        describe(trainer.progress_bar_callback, "Testing")


def describe(bar: Any, text: str) -> None:
    """Write `text` where the bar of `test` has its name."""
    if isinstance(bar, RichProgressBar):
        if bar.is_enabled and bar.progress is not None and bar.test_progress_bar_id is not None:
            bar.progress.update(bar.test_progress_bar_id, description=text)
            bar.refresh()
    elif isinstance(bar, TQDMProgressBar) and bar.is_enabled:
        bar.test_progress_bar.set_description(text)
