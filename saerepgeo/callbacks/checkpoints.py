"""Checkpoints that are whole or absent, and that are checked before they are believed.

Lightning writes a file in the system's temporary folder and moves it, which across file systems is
a copy in place: a kill or a full disk then leaves half a checkpoint. Here it is written beside its
place, flushed to the disk and renamed. The zip that torch writes holds a CRC32 of each record;
torch does not read it, `read_checkpoint` does.
"""

import pickle
import re
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from saerepgeo.callbacks.interruption import Interruption
from saerepgeo.files import is_url, replacing

PARTS = ("state_dict", "global_step", "pytorch-lightning_version")
"""What every checkpoint of Lightning holds."""
OF_TRAINING = ("optimizer_states", "loops")
"""What one needs besides to go on training."""


class DamagedCheckpoint(ValueError):  # noqa: N818  (its message begins "checkpoint …")
    """A file that is no whole checkpoint, or holds more than tensors and plain values."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's own, but a local file is written whole or not at all, and checked when read."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if is_url(path) or storage_options is not None:
            return super().save_checkpoint(checkpoint, path, storage_options)
        size = n_bytes(checkpoint)
        with replacing(path, size, durable=True) as scratch, open(scratch, "wb") as file:
            torch.save(checkpoint, file)
        return None

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        if not is_url(path):
            check_whole(path)
        return super().load_checkpoint(path, map_location, weights_only)


def n_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(n_bytes, value)) if isinstance(value, list | tuple) else 0


def check_whole(path: str | Path) -> None:
    """Raise DamagedCheckpoint where a file is no zip, or a record has another CRC32 than it says.

    Of a folder, in which a sharded checkpoint lies, only `meta.pt` can be checked.
    """
    path = Path(path)
    file = path / "meta.pt" if path.is_dir() else path
    if not file.is_file():
        raise DamagedCheckpoint(f"there is no checkpoint {path}")
    stat = file.stat()
    if (damage := _damage(file, stat.st_size, stat.st_mtime_ns)) is not None:
        raise DamagedCheckpoint(f"{path} is no whole checkpoint ({damage})")


@lru_cache(maxsize=64)
def _damage(file: Path, size: int, mtime_ns: int) -> str | None:
    """Return what is wrong with a zip; remembered, for each file is read more than once."""
    try:
        with zipfile.ZipFile(file) as archive:
            record = archive.testzip()
    except OSError as error:
        return error.strerror or str(error)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        return f"{size:,} bytes: {ascii(str(error))[1:-1]}"
    return None if record is None else f"the record {record!a} is damaged"


def read_checkpoint(
    path: str | Path, is_to_go_on: bool = False, weights_only: bool | None = True
) -> dict[str, Any]:
    """Return a checkpoint of Lightning's, its tensors on disk until they are used.

    Raises DamagedCheckpoint with one line: missing, cut, damaged, another kind of file, one that
    holds more than tensors and plain values, or no state of the optimizer where it `is_to_go_on`.
    """
    check_whole(path)
    path = Path(path)
    file, mmap = (path / "meta.pt", False) if path.is_dir() else (path, True)
    try:
        found = torch.load(file, map_location="cpu", mmap=mmap, weights_only=weights_only)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|Unsupported \w+|class) ([\w.]+)", str(error))
        raise DamagedCheckpoint(
            f"{path} is not read: it holds {named[1] if named else 'something'} besides tensors "
            "and plain values, and could run code; `--weights_only false` for a file you trust"
        ) from error
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:  # a zip, but not torch's
        reason = ascii(str(error))[1:160]
        raise DamagedCheckpoint(f"{path} is no checkpoint ({reason})") from error
    parts = PARTS + (OF_TRAINING if is_to_go_on else ())
    missing = [p for p in parts if not (isinstance(found, dict) and p in found)]
    if missing and not path.is_dir():
        raise DamagedCheckpoint(f"{path} is no checkpoint to use: it has no {', '.join(missing)}")
    return found


def last_whole(
    callbacks: Iterable[Callback], *options: Any
) -> tuple[Path | None, dict[str, Any], list[str]]:
    """Return the newest checkpoint in the folders of `callbacks` that reads, and its contents.

    Then what is wrong with each newer one. `options` are those of `read_checkpoint`.
    """
    damages: list[str] = []
    for path in _newest_first(callbacks):
        try:
            return path, read_checkpoint(path, *options), damages
        except DamagedCheckpoint as error:
            damages.append(str(error))
    return None, {}, damages


def folders(callbacks: Iterable[Callback]) -> list[Path]:
    """Return the local folders into which callbacks save checkpoints."""
    found = [
        Path(callback.dirpath).resolve()
        for callback in callbacks
        if isinstance(callback, ModelCheckpoint | Interruption)
        and callback.dirpath is not None
        and not is_url(callback.dirpath)
    ]
    return list(dict.fromkeys(found))


def _newest_first(callbacks: Iterable[Callback]) -> list[Path]:
    found = [path for folder in folders(callbacks) for path in folder.glob("*.ckpt")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)
