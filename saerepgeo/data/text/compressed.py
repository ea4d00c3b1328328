"""Files of text, plain or gzip, opened for reading bytes; none of them expands without end."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMPRESSED = (".gz", ".dz")
MOST_EXPANSION = 100
"""Times as long as its compressed bytes a text may be: natural text is 2 to 10 times as long."""
FREE_BYTES = 16 * 2**20
"""Bytes that any file may expand to."""
_GZIP = b"\x1f\x8b"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading bytes, decompressed where its name ends in `.gz` or `.dz`.

    Raises ValueError where it is damaged, no gzip, gzip under another name or within gzip, or
    expands beyond `MOST_EXPANSION`: then before anything is made of it.
    """
    is_compressed = path.suffix in COMPRESSED
    try:
        if is_compressed:
            with _Expanded(path) as file:
                start = file.read(FREE_BYTES + 1)
        else:
            with path.open("rb") as plain:
                start = plain.read(len(_GZIP))
        if start.startswith(_GZIP):
            mend = "decompress it once" if is_compressed else f"call it {path.name}.gz"
            raise ValueError(f"{path}: expected text, found gzip; {mend}")
        with (
            io.BufferedReader(_Expanded(path), 2**20) if is_compressed else path.open("rb") as file
        ):
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:  # cut short, damaged, or no gzip
        raise ValueError(f"{path}: damaged or not gzip: {error}") from error


class _Expanded(io.RawIOBase):
    """The decompressed bytes of a gzip file."""

    def __init__(self, path: Path) -> None:
        self._path, self._n_read = path, 0
        self._file = path.open("rb")
        self._gzip = gzip.GzipFile(fileobj=self._file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._gzip.read(len(buffer))
        buffer[: len(found)] = found
        self._n_read += len(found)
        if self._n_read > max(FREE_BYTES, MOST_EXPANSION * self._file.tell()):
            raise ValueError(
                f"{self._path}: expands to more than {MOST_EXPANSION} times its size; no text does"
            )
        return len(found)

    def close(self) -> None:
        self._gzip.close()
        self._file.close()
        super().close()
