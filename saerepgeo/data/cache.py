"""Activations kept on disk by what they were computed from: one safetensors file a key.

The folder is bounded: what was not used for longest goes first (`cache_limit`).
"""

import argparse
import hashlib
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from saerepgeo.files import replacing
from saerepgeo.lm.sources import cache_root, load_config, resolve_model

Tensors = dict[str, Tensor]

STREAM_LIMIT = 2**30
"""Bytes of a run's stream up to which `cache_stream: auto` keeps it on disk."""
CLEARED = ("activations", "tokens")
"""What can be computed anew at any time; converted models and records of downloads stay."""


class LMSettings(NamedTuple):
    """What, besides the tokens, residuals depend on."""

    name: str
    hook_name: str
    dtype: str
    center_residuals: bool


def tokens_key(kind: str, fingerprint: str, settings: LMSettings, tokens: Tensor) -> dict[str, Any]:
    """Return the cache key of what a model makes of `tokens`."""
    shown = [hashlib.sha256(tokens.numpy().tobytes()).hexdigest(), *tokens.shape]
    return {"kind": kind, "model": fingerprint, **settings._asdict(), "tokens": shown}


def activations_folder() -> Path:
    """Return the folder of cached activations."""
    return cache_root() / "activations"


def cache_limit() -> int:
    """Return the bytes that cached activations may take: `$SAEREPGEO_CACHE_GIB`, by default 8 GiB.

    Raises ValueError where the variable holds no number.
    """
    value = os.environ.get("SAEREPGEO_CACHE_GIB", 8.0)
    try:
        return int(float(value) * 2**30)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"`SAEREPGEO_CACHE_GIB` must be a number of GiB, got `{value}`") from error


def keeps_stream(wanted: bool | Literal["auto"], n_bytes: int | None) -> bool:
    """Return whether a run's points go to the disk cache; `wanted` is `cache_stream`.

    They take `n_bytes`, None in a run without last step. Raises ValueError where they do not fit.
    """
    limit = cache_limit()
    if wanted == "auto":
        return n_bytes is not None and n_bytes <= min(STREAM_LIMIT, limit / 2)
    if wanted and n_bytes is not None and n_bytes > limit:
        raise ValueError(
            f"`cache_stream` would keep {n_bytes / 2**30:.1f} GiB, more than the cache may hold "
            f"({limit / 2**30:g} GiB); set SAEREPGEO_CACHE_GIB, or `cache_stream` to false"
        )
    return bool(wanted)


def cached_tensors(key: Mapping[str, Any], compute: Callable[[], Tensors]) -> Tensors:
    """Return the tensors stored under `key`, or compute and store them.

    The key is JSON and holds all that they depend on; its `kind` names them for the user. A damaged
    file counts as absent. Where nothing can be stored (a full disk), a warning says so.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    text = json.dumps(key, sort_keys=True)
    path = activations_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    with suppress(FileNotFoundError, SafetensorError):
        stored = load_file(path)
        os.utime(path)  # what is used stays
        return stored
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    try:
        with replacing(path) as scratch:
            save_file(tensors, scratch, metadata={"key": text})
    except (OSError, SafetensorError) as error:  # the writer makes either of a full disk
        warnings.warn(f"activations are not kept in {path.parent}: {error}", stacklevel=2)
    else:
        _evict(path)
    return tensors


def _evict(newest: Path) -> None:
    """Delete what was used longest ago until the rest is within the limit; never `newest`."""
    stats = {path: path.stat() for path in _files(newest.parent)}
    excess = sum(stat.st_size for stat in stats.values()) - cache_limit()
    for path in sorted(stats, key=lambda path: stats[path].st_mtime_ns):
        if excess <= 0:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            excess -= stats[path].st_size


def _files(folder: Path) -> list[Path]:
    """Return the files of activations; without those that another process is just deleting."""
    return [path for path in folder.glob("*.safetensors") if path.is_file()]


def model_fingerprint(name: str) -> str:
    """Return what changes when the weights behind the model `name` change.

    A local folder: names, sizes and times of its files. A hub id: the commit, where it is known.
    """
    location = resolve_model(name)
    folder = Path(location)
    if not folder.is_dir():
        return f"{location}@{getattr(load_config(name), '_commit_hash', None)}"
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".bin"))
    facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def cache_size() -> int:
    """Return the bytes that cached activations and tokens take on disk."""
    files = (p for name in CLEARED for p in (cache_root() / name).rglob("*") if p.is_file())
    return sum(p.stat().st_size for p in files)


def clear_cache() -> int:
    """Delete cached activations and tokens; return the bytes freed."""
    size = cache_size()
    for name in CLEARED:
        shutil.rmtree(cache_root() / name, ignore_errors=True)
    return size


def sizes_by_kind() -> dict[str, tuple[int, int]]:
    """Return `{kind: (sets, bytes)}` of the cached activations, the largest first."""
    from safetensors import safe_open

    numbers, sizes = Counter[str](), Counter[str]()
    for path in _files(activations_folder()):
        with safe_open(path, "pt") as file:
            kind = json.loads(file.metadata()["key"]).get("kind", "other").partition("/")[0]
        numbers[kind] += 1
        sizes[kind] += path.stat().st_size
    return {kind: (numbers[kind], size) for kind, size in sizes.most_common()}


def main(args: Sequence[str]) -> int:
    """Show what the cache holds, or clear it: `python -m saerepgeo cache [--clear]`."""
    parser = argparse.ArgumentParser(
        prog="python -m saerepgeo cache",
        description="Show the folder and size of cached activations and tokens. Activations are "
        "bounded by SAEREPGEO_CACHE_GIB; what was not used for longest goes first.",
        allow_abbrev=False,
    )
    parser.add_argument("--clear", action="store_true", help="delete them; models stay")
    if parser.parse_args(list(args)).clear:
        print(f"cleared {clear_cache() / 2**20:.1f} MiB under {cache_root()}")
        return 0
    kinds, total = sizes_by_kind(), cache_size() / 2**20
    n_sets, limit = sum(number for number, _ in kinds.values()), f"{cache_limit() / 2**30:g} GiB"
    print(f"{cache_root()}: {total:.1f} MiB, {n_sets} sets of activations (at most {limit})")
    for kind, (number, size) in kinds.items():
        print(f"  {kind}: {size / 2**20:.1f} MiB in {number}")
    return 0
