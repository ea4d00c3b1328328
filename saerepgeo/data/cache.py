"""Activations and tokens kept on disk by what they were computed from: a safetensors file a key.

A file says its key and the sums of its tensors; what does not fit is computed anew. The folder is
bounded: what was not used for longest goes first (`cache_limit`).
"""

import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saerepgeo.files import DiskError, is_unfinished, replacing
from saerepgeo.lm.sums import cache_root

Tensors = dict[str, Tensor]

STREAM_LIMIT = 2**30
"""Bytes of a run's stream up to which `cache_stream: auto` keeps it on disk."""
CLEARED = ("activations", "tokens")
"""What can be computed anew at any time, `tokens` being a former version's; converted models and
records of downloads stay."""
FORMAT = 2
"""Part of the files' names: to be changed with what is written into them."""
_OWN = re.compile(r"[0-9a-f]{32}\.(safetensors|uint32)")
_UNKEPT = set[Path]()
"""Folders of which this process has said that nothing can be kept there."""


class LMSettings(NamedTuple):
    """What, besides the tokens, residuals depend on."""

    name: str
    hook_name: str
    dtype: str
    center_residuals: bool
    device: str
    """Its kind: kernels of another round otherwise."""
    versions: str
    """Of the libraries that compute them."""


def library_versions() -> str:
    """Return names and versions of the libraries that a model is computed with."""
    names = ("torch", "transformers", "transformer-lens")
    return ", ".join(f"{name} {version(name)}" for name in names)


def tokens_key(kind: str, fingerprint: str, settings: LMSettings, tokens: Tensor) -> dict[str, Any]:
    """Return the cache key of what a model makes of `tokens`."""
    shown = [hashlib.sha256(tokens.numpy().tobytes()).hexdigest(), *tokens.shape]
    return {"kind": kind, "model": fingerprint, **settings._asdict(), "tokens": shown}


def activations_folder() -> Path:
    """Return the folder of cached activations and tokens."""
    return cache_root() / "activations"


def cache_limit() -> int:
    """Return the bytes that the cache may take: `$SAEREPGEO_CACHE_GIB`, by default 8 GiB.

    Raises ValueError where the variable holds no number of at least 0; at 0 nothing is kept.
    """
    value = os.environ.get("SAEREPGEO_CACHE_GIB") or "8"
    with suppress(ValueError):
        if 0 <= float(value) < math.inf:
            return int(float(value) * 2**30)
    raise ValueError(f"`SAEREPGEO_CACHE_GIB` must be a number of GiB, at least 0, got `{value}`")


def keeps_stream(wanted: bool | Literal["auto"], n_bytes: int | None) -> bool:
    """Return whether a run's points go to the disk cache; `wanted` is `cache_stream`.

    They take `n_bytes`, None in a run without last step. Raises ValueError where they do not fit.
    """
    limit = cache_limit()
    if wanted == "auto":
        return n_bytes is not None and n_bytes <= min(STREAM_LIMIT, limit / 2)
    if wanted and n_bytes is not None and n_bytes > limit:
        raise ValueError(
            f"`cache_stream` would keep {n_bytes / 2**30:.3g} GiB, more than the cache may hold "
            f"({limit / 2**30:.3g} GiB); set SAEREPGEO_CACHE_GIB, or `cache_stream` to false"
        )
    return bool(wanted)


@contextmanager
def holding() -> Iterator[None]:
    """Inside, tensors that the disk does not keep are held in memory, to be computed once."""
    global _HELD
    before, _HELD = _HELD, Held()
    try:
        yield
    finally:
        _HELD = before


class Held(dict[Path, Tensors]):
    """Tensors held in memory, by the files that they would be in; `n_bytes` went to disk."""

    n_bytes = 0


_HELD: Held | None = None


def cached_tensors(
    key: Mapping[str, Any], compute: Callable[[], Tensors], keep: bool = True
) -> Tensors:
    """Return the tensors stored under `key`, or compute and store them.

    The key is JSON and holds all that they depend on; its `kind` names them for the user. A damaged
    file counts as absent, and where nothing can be stored (a full disk) the run goes on: a warning
    says so. Without `keep` there is no file; `holding` still holds them.
    """
    if not keep and _HELD is None:
        return compute()
    limit, text = cache_limit(), json.dumps(key, sort_keys=True)
    name = hashlib.sha256(f"{FORMAT} {text}".encode()).hexdigest()[:32]
    path = activations_folder() / f"{name}.safetensors"
    stored = _HELD.get(path) if _HELD is not None else None
    if stored is None and keep:
        stored = _stored(path, text)
    if stored is not None:
        return dict(stored)
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    n_bytes = sum(tensor.nbytes for tensor in tensors.values())
    # on disk it would push out what the run has put there
    has_room = keep and limit > 0 and (_HELD is None or _HELD.n_bytes + n_bytes <= limit)
    is_kept = has_room and _keep(path, text, tensors)
    if _HELD is not None:
        _HELD.n_bytes += n_bytes if is_kept else 0
        if not is_kept:
            _HELD[path] = dict(tensors)
    return tensors


def _stored(path: Path, key: str) -> Tensors | None:
    """Return the tensors of a file, None where it is absent or not what was written for `key`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.get("key") != key:
            reason = "it is of another key"
        elif facts.get("sums") != _sums(tensors):
            reason = "its content is not what was written"
        else:
            with suppress(OSError):
                os.utime(path)  # what is used stays
            return tensors
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
    warnings.warn(f"the cached file {path} is damaged ({reason}); computed anew", stacklevel=3)
    return None


def _sums(tensors: Tensors) -> str:
    """Return kind, shape and checksum of each tensor, as JSON."""
    from xxhash import xxh3_128_hexdigest  # 5 times as fast as crc32, 20 as blake2b

    def facts(x: Tensor) -> list[Any]:
        flat = x.detach().cpu().reshape(-1)  # of none a view as bytes may be impossible
        content = flat.view(torch.uint8).numpy().data if len(flat) else b""
        return [str(x.dtype), *x.shape, xxh3_128_hexdigest(content)]

    return json.dumps({name: facts(tensor) for name, tensor in sorted(tensors.items())})


def _keep(path: Path, key: str, tensors: Tensors) -> bool:
    """Write a file; return whether that could be done."""
    from safetensors.torch import save_file

    is_kept = True
    try:
        with replacing(path, sum(tensor.nbytes for tensor in tensors.values())) as scratch:
            save_file(tensors, scratch, metadata={"key": key, "sums": _sums(tensors)})
    except DiskError as error:
        is_kept = False
        if path.parent not in _UNKEPT:
            from lightning.pytorch.utilities import rank_zero_warn  # of several processes one

            _UNKEPT.add(path.parent)
            reason = os.strerror(error.errno or 0)
            rank_zero_warn(
                f"activations are not kept in {path.parent}: {reason}; the run goes on, and later "
                "ones compute them again",
                stacklevel=3,
            )
    _evict(path)
    return is_kept


def _evict(newest: Path) -> None:
    """Delete what was used longest ago until the rest is within the limit; never `newest`."""
    stats = cached_files()
    excess = sum(stat.st_size for stat in stats.values()) - cache_limit()
    for path in sorted(stats, key=lambda path: stats[path].st_mtime_ns):
        if excess <= 0:
            return
        if path != newest and _OWN.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
                excess -= stats[path].st_size


def cached_files() -> dict[Path, os.stat_result]:
    """Return all files of the cache; without those that another process is just deleting."""
    found = {}
    # unlike `rglob` it passes over a folder that is gone by the time it is looked into
    walks = (os.walk(cache_root() / name) for name in CLEARED)
    for path in (Path(at, name) for walk in walks for at, _, names in walk for name in names):
        with suppress(OSError):
            if path.is_file():
                found[path] = path.stat()
    return found


def cache_size() -> int:
    """Return the bytes that cached activations and tokens take on disk."""
    return sum(stat.st_size for stat in cached_files().values())


def clear_cache() -> int:
    """Delete cached activations and tokens, not what else lies there; return the bytes freed."""
    size = cache_size()
    for folder in (cache_root() / name for name in CLEARED):
        for path in folder.glob("*"):
            if is_unfinished(path.name):
                shutil.rmtree(path, ignore_errors=True)
            elif _OWN.fullmatch(path.name):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # not there, or not empty
            folder.rmdir()
    return size - cache_size()
