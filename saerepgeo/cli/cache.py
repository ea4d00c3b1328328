"""`python -m saerepgeo cache`: what the cache holds, by kind; or clear it."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from saerepgeo.cli.errors import OneLineErrors
from saerepgeo.data.cache import CLEARED, cache_limit, cached_files, clear_cache
from saerepgeo.files import is_unfinished, sweep
from saerepgeo.lm.sums import cache_root


def kind_of(path: Path) -> str:
    """Return what a file of the cache holds: its key's `kind`, `unfinished`, or `other`."""
    from safetensors import SafetensorError, safe_open

    if any(is_unfinished(part) for part in path.parts):
        return "unfinished"
    with suppress(OSError, ValueError, SafetensorError), safe_open(path, "pt") as file:
        key = json.loads((file.metadata() or {}).get("key", "null"))
        kind = key.get("kind") if isinstance(key, dict) else None
        if isinstance(kind, str) and kind.isprintable():
            return kind.partition("/")[0]
    return "other"


def sizes_by_kind() -> dict[str, tuple[int, int]]:
    """Return `{kind: (files, bytes)}` of the cache, the largest first."""
    numbers, sizes = Counter[str](), Counter[str]()
    for path, stat in cached_files().items():
        kind = kind_of(path)
        numbers[kind] += 1
        sizes[kind] += stat.st_size
    return {kind: (numbers[kind], size) for kind, size in sizes.most_common()}


def main(args: Sequence[str]) -> int:
    """Show what the cache holds, or clear it: `python -m saerepgeo cache [--clear]`."""
    parser = OneLineErrors(
        prog="python -m saerepgeo cache",
        description="Show the folder and size of cached activations and tokens. They are bounded "
        "by SAEREPGEO_CACHE_GIB; what was not used for longest goes first.",
        allow_abbrev=False,
    )
    parser.add_argument("--clear", action="store_true", help="delete them; models stay")
    if parser.parse_args(list(args)).clear:
        print(f"cleared {clear_cache() / 2**20:.1f} MiB under {cache_root()}")
        return 0
    for name in CLEARED:
        sweep(cache_root() / name)
    kinds, limit = sizes_by_kind(), f"{cache_limit() / 2**30:g} GiB"
    n_sets, total = (sum(facts) for facts in zip((0, 0), *kinds.values(), strict=True))
    print(f"{cache_root()}: {total / 2**20:.1f} MiB, {n_sets} files (at most {limit})")
    for kind, (number, size) in kinds.items():
        print(f"  {kind}: {size / 2**20:.1f} MiB in {number}")
    return 0
