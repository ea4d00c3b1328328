"""What a run writes of itself, settings and logs: when, how, and what a refusal leaves of it."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from saerepgeo.files import DiskError, is_url, write_bytes, written_to


def keep_to_the_run() -> None:
    """Keep Lightning's tips, which advertise other products, off the screen."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_of_the_run)


def _is_of_the_run(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()


class SaveSettings(SaveConfigCallback):
    """Write the settings once everything is loaded: a run that is refused leaves none behind."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for the start."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, pl_module, "fit")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, pl_module, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, pl_module, "test")

    def _save(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file whole, which Lightning's own writer does in a bucket alone."""
        folder = trainer.log_dir  # of all processes the first one's
        if folder is not None and is_url(folder):
            super().setup(trainer, pl_module, stage)
        elif folder is not None and trainer.is_global_zero and not self.already_saved:
            settings = self.parser.dump(self.config, skip_none=False)
            write_bytes(Path(folder) / self.config_filename, settings.encode())
        self.already_saved = True


@contextmanager
def logged_to(trainer: Trainer) -> Iterator[None]:
    """Take back what loggers wrote for a run that is refused before its first batch.

    Says in one line, with its path, that what a logger writes does not fit on the disk: TensorBoard
    writes in a thread of its own, which would end with a traceback or in silence. Raises DiskError,
    at the end at the latest.
    """
    folder = getattr(trainer.logger, "save_dir", None) or trainer.default_root_dir
    before = {path: _entries(path) for path in _log_folders(trainer)}
    failed: list[DiskError] = []
    previous = threading.excepthook

    def heard(thread: Any) -> None:
        try:
            with written_to(folder):
                raise thread.exc_value
        except DiskError as error:
            failed.append(error)
        except BaseException:
            previous(thread)

    threading.excepthook = heard
    try:
        with written_to(folder):
            yield
        if failed:
            raise failed[0]
    except (ValueError, OSError):
        if not _has_begun(trainer):
            for logger in trainer.loggers:
                logger.finalize("failed")
            for path, entries in before.items():
                _take_back(path, entries)
        raise
    finally:
        threading.excepthook = previous


def _has_begun(trainer: Trainer) -> bool:
    found = [c for c in trainer.callbacks if isinstance(c, SaveSettings)]  # type: ignore[attr-defined]
    return any(callback.already_saved for callback in found) or not found


def _log_folders(trainer: Trainer) -> list[Path]:
    if not trainer.is_global_zero:
        return []
    folders = [getattr(logger, "log_dir", None) for logger in trainer.loggers]
    return [Path(folder) for folder in folders if folder is not None and not is_url(folder)]


def _entries(folder: Path) -> set[Path]:
    """Return the folders above a folder that are there, and the files in it."""
    above = {path for path in (folder, *folder.parents) if path.exists()}
    return above | (set(folder.iterdir()) if folder.is_dir() else set())


def _take_back(folder: Path, before: set[Path]) -> None:
    """Remove files that were not in a folder, and it and those above it that are empty then."""
    for path in _entries(folder) - before:
        if path.is_file():
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or another process has been faster
        for path in (folder, *folder.parents):
            if path in before:
                break
            path.rmdir()
