"""Results on disk: tables that runs add to, tensors, label arrays and figures; all or nothing."""

import csv
import io
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from saerepgeo.data.prompts import file_part
from saerepgeo.files import read_text, replacing, write_bytes, written_to

Row = Mapping[str, str | float | int | bool | None]
DPI = 150


def file_name(*parts: str) -> str:
    """Return parts of a name joined by `_`, safe as a file name.

    >>> file_name("gemma-2-2b Layer 19", "months", "0.01")
    'gemma-2-2b_Layer_19_months_0.01'
    """
    return "_".join(map(file_part, parts))


def merge_rows(path: str | Path, rows: Sequence[Row], key: Sequence[str]) -> None:
    """Add `rows` to the CSV file `path`; rows there with the same values in `key` give way.

    Safe beside other processes that add to the same file: each holds a lock (`.NAME.lock`, which
    the system releases when a process dies) from reading to renaming. The columns are those of the
    file, then new ones in the order of the rows; a missing value or None is an empty field, NaN is
    `nan`. File and folder are made where they are missing. No rows: nothing happens.

    Raises ValueError where a row or the file lacks a column of `key`, or a line of the file does
    not fit its header; DiskError where it cannot be written, the file then being as before.
    """
    path, of_key = Path(path), itemgetter(*key)
    for row in rows:
        _require(key, row, f"a row for {path}")
    if not rows:
        return
    with written_to(path), _lock(path):
        existing = read_rows(path) if path.is_file() else []
        if existing:
            _require(key, existing[0], f"the header of {path}")
        fresh = [{n: "" if v is None else str(v) for n, v in row.items()} for row in rows]
        replaced = set(map(of_key, fresh))
        kept = [row for row in existing if of_key(row) not in replaced]
        write_rows(path, [*kept, *fresh], columns=list(existing[0]) if existing else ())


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as text by column; ValueError where a line does not fit."""
    return parsed_rows(read_text(path), str(path))


def parsed_rows(text: str, path: str) -> list[dict[str, str]]:
    """Return the rows of the text of a CSV file; see `read_rows`."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(
                f"row {number} of {path} does not fit the header ({len(reader.fieldnames or ())} "
                "columns); mend the file or move it away"
            )
    return rows


def write_rows(path: str | Path, rows: Sequence[Row], columns: Sequence[str] = ()) -> None:
    """Write a CSV file anew: `columns` first, then others in the order in which rows name them."""
    write_bytes(path, rows_text(rows, columns).encode())


def rows_text(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """Return the text of a CSV file; see `write_rows`."""
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, which may share memory or lie on any device, as one safetensors file."""
    from safetensors.torch import save_file

    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with replacing(path, sum(copy.nbytes for copy in copies.values())) as scratch:
        save_file(copies, scratch, metadata=dict(metadata or {}))


def save_array(path: str | Path, array: Tensor | np.ndarray) -> None:
    """Write a numeric array as an `.npy` file, without pickle."""
    content = io.BytesIO()  # numpy's own writer hides what the disk says
    np.save(content, torch.as_tensor(array).detach().cpu().numpy(), allow_pickle=False)
    write_bytes(path, content.getvalue())


def save_figure(figure: Any, path: str | Path) -> np.ndarray:
    """Write a matplotlib figure as PNG and SVG; `path` goes without either suffix.

    Returns the picture, `[height, width, RGBA]` in bytes. The same figure gives the same SVG bytes:
    no date, and ids that do not depend on the run.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.image import imsave

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")  # laid out once; `savefig` would draw twice a format
    picture = np.array(canvas.buffer_rgba())
    png, svg = io.BytesIO(), io.BytesIO()
    imsave(png, picture, format="png", dpi=DPI)
    with matplotlib.rc_context({"svg.hashsalt": "saerepgeo"}):
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    write_bytes(f"{path}.png", png.getvalue())
    write_bytes(f"{path}.svg", svg.getvalue())
    return picture


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _require(key: Sequence[str], row: Mapping[str, Any], what: str) -> None:
    missing = [name for name in key if name not in row]
    if missing:
        raise ValueError(
            f"{what} must have the key columns {', '.join(key)}, got none named "
            f"{', '.join(missing)}"
        )
