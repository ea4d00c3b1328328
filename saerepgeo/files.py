"""Files that appear whole: written beside their place under another name, then renamed.

So a crash, or a second process, leaves either the file of before or the whole new one.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[str]:
    """Give a temporary name beside `path`, renamed to it if all goes well; make its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    try:
        yield scratch
        os.chmod(scratch, 0o666 & ~_umask())  # mkstemp's files are the owner's alone
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any, indent: int = 1) -> None:
    """Write `value` as a JSON file that ends in a line break."""
    with replacing(path) as scratch:
        Path(scratch).write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
