"""Activations kept on disk by what they were computed from: one safetensors file a key."""

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from saerepgeo.lm_sources import cache_root, resolve_model

Tensors = dict[str, Tensor]


def activations_folder() -> Path:
    """Return the folder of cached activations."""
    return cache_root() / "activations"


def cached_tensors(key: Mapping[str, Any], compute: Callable[[], Tensors]) -> Tensors:
    """Return the tensors stored under `key`, computing and storing them on first use.

    Safe against a second process (both compute the same, the last rename wins) and against a kill
    in the middle (a file appears under its name only when it is whole).

    Args:
        key: everything the tensors depend on, as JSON.
        compute: called where nothing is stored yet.
    """
    from safetensors.torch import load_file, save_file

    text = json.dumps(key, sort_keys=True)
    path = activations_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    if path.is_file():
        return load_file(path)
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    try:
        save_file(tensors, scratch, metadata={"key": text})
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return tensors


def model_fingerprint(name: str) -> str:
    """Return what changes when the weights behind the model `name` change.

    A local folder: names, sizes and times of its files. A hub id: the commit, where it is known.
    """
    source = resolve_model(name)
    folder = Path(source)
    if not folder.is_dir():
        from saerepgeo.lm_sources import load_config

        return f"{source}@{getattr(load_config(name), '_commit_hash', None)}"
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".bin"))
    facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


CLEARED = ("activations", "tokens")
"""What can be computed anew at any time; converted models and records of downloads stay."""


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


def main(args: Sequence[str]) -> int:
    """Show what the cache holds, or clear it: `python -m saerepgeo cache [--clear]`."""
    parser = argparse.ArgumentParser(
        prog="python -m saerepgeo cache",
        description="Show the folder and size of cached activations and tokens.",
        allow_abbrev=False,
    )
    parser.add_argument("--clear", action="store_true", help="delete them; models stay")
    if parser.parse_args(list(args)).clear:
        print(f"cleared {clear_cache() / 2**20:.1f} MiB under {cache_root()}")
        return 0
    n_files = len(list(activations_folder().glob("*.safetensors")))
    print(f"{cache_root()}: {cache_size() / 2**20:.1f} MiB, {n_files} sets of activations")
    return 0
