"""Files that appear whole: written beside their place under another name, then renamed.

So a crash, or a second process, leaves either the file of before or the whole new one.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[str]:
    """Give a temporary file beside `path`, renamed to it if all goes well; make its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    scratch.touch(exist_ok=False)
    mode = scratch.stat().st_mode
    try:
        yield str(scratch)
        scratch.chmod(mode)  # safetensors puts a file that is the owner's alone in its place
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any, indent: int = 1) -> None:
    """Write `value` as a JSON file that ends in a line break."""
    with replacing(path) as scratch:
        Path(scratch).write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")
