"""Files and folders that appear whole: made beside their place under another name, then renamed.

So a crash, a kill or a full disk leaves either what was there before or the whole new one. What a
killed process left unfinished carries its computer and number in its name, and goes when a living
one next writes into the same folder.
"""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LEFT_AFTER = 3600.0
"""Seconds for which an unfinished file must have lain untouched before it may be removed."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG}
_NO_FOLDER = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_OWNER = r"(\.(?P<host>[\w-]+)\+(?P<process>\d+))?"
_UNFINISHED = re.compile(rf"\..+?{_OWNER}\.[0-9a-f]{{8}}\.(partial|old)")


class DiskError(OSError):
    """A file or folder could not be written: one line with its path, the reason, what to do."""


@contextmanager
def replacing(path: str | Path, n_bytes: int | None = None, durable: bool = False) -> Iterator[str]:
    """Give a temporary file near `path`, renamed to it if all goes well; make its folder.

    `n_bytes` is how large it will be, for the message where it does not fit. `durable` waits until
    the disk holds it (fsync, some 10 ms): it then outlives a loss of power as well.

    Raises DiskError where the disk is full or the folder cannot be written to; other errors pass.
    """
    path = Path(path)
    with written_to(path, n_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        folder = _beside(path, "partial")  # a folder, for safetensors has scratch files of its own
        scratch = folder / path.name
        try:
            folder.mkdir()
            scratch.touch()
            mode = scratch.stat().st_mode
            yield str(scratch)
            scratch.chmod(mode)  # safetensors puts a file that is the owner's alone in its place
            if durable:
                _sync(scratch)
            scratch.replace(path)
            if durable:
                _sync(path.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing_folder(
    path: str | Path,
    n_bytes: int | None = None,
    replaces: frozenset[str] = frozenset(),
    first_stays: bool = False,
) -> Iterator[Path]:
    """Give an empty folder beside `path` that takes its place, durably, if all goes well.

    What stands in the old folder stays, but for the names in `replaces` and those written anew.
    `first_stays`: where another process has made `path` meanwhile, its folder stays, and this one
    is dropped; for what is the same whoever makes it. Raises DiskError as `replacing` does.
    """
    path = Path(path)
    with written_to(path, n_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        _put_back(path)
        sweep(path.parent)
        scratch, retired = _beside(path, "partial"), _beside(path, "old")
        try:
            scratch.mkdir()
            yield scratch
            if not first_stays:
                _take_over(path, scratch, replaces)
            for entry in (*scratch.rglob("*"), scratch):
                _sync(entry)
            if not first_stays and path.exists():
                path.replace(retired)
            try:
                scratch.replace(path)
            except OSError:  # no folder goes over one that holds something
                if not first_stays or not path.is_dir():
                    raise
            _sync(path.parent)
        finally:
            if retired.exists() and not path.exists():
                retired.replace(path)
            for left in (scratch, retired):
                shutil.rmtree(left, ignore_errors=True)


def _take_over(old: Path, new: Path, but: frozenset[str]) -> None:
    """Copy what stands in a folder to another, but for some names and those that are there."""
    for entry in old.iterdir() if old.exists() else ():
        if entry.name not in but and not (new / entry.name).exists():
            copy: Any = shutil.copytree if entry.is_dir() else shutil.copy2
            copy(entry, new / entry.name)


def write_json(path: str | Path, value: Any, indent: int = 1) -> None:
    """Write `value` as a JSON file that ends in a line break."""
    write_bytes(path, (json.dumps(value, indent=indent) + "\n").encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file as a whole; at a URL, as whole as its store does."""
    if is_url(path):
        import fsspec

        of_disk = {"auto_mkdir": True} if str(path).startswith("file://") else {}
        try:
            with fsspec.open(str(path), "wb", **of_disk) as file:
                file.write(content)
        except OSError as error:
            raise DiskError(f"`{path}` could not be written: {error}") from error
        return
    with replacing(path, len(content)) as scratch:
        Path(scratch).write_bytes(content)


def read_text(path: str | Path) -> str:
    """Return what a file holds, on disk or at a URL; FileNotFoundError where there is none."""
    if not is_url(path):
        return Path(path).read_bytes().decode()
    import fsspec

    with fsspec.open(str(path), "rb") as file:
        return str(file.read().decode())


def content_sum(value: Any) -> str:
    """Return a checksum of something that JSON can hold, the same once it has been read again."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def is_url(path: str | Path) -> bool:
    """Return whether a path leads to a store that fsspec opens."""
    return "://" in str(path)


@contextmanager
def written_to(path: str | Path, n_bytes: int | None = None) -> Iterator[None]:
    """Turn what a disk refuses inside into a DiskError that names `path`; other errors pass."""
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        code = _code_of(error, Path(path))
        if code is None:
            raise
        raise _refusal(Path(path), code, n_bytes) from error


def check_folder(path: str | Path) -> None:
    """Raise DiskError where no file could be written into a folder; nothing is written or made.

    Of a URL only whether fsspec knows its store, with a ValueError.
    """
    if is_url(path):
        import fsspec

        try:
            fsspec.url_to_fs(str(path))
        except (ImportError, ValueError) as error:
            raise ValueError(f"`{path}` must be a folder, or a URL of fsspec: {error}") from None
        return
    path = Path(path)
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise _refusal(path, errno.ENOTDIR)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _refusal(path, errno.EACCES)


def sweep(folder: Path) -> None:
    """Delete unfinished files and folders of killed processes; see `is_left` for which they are."""
    with suppress(OSError):
        for entry in [entry for entry in os.scandir(folder) if entry.name.endswith(".partial")]:
            if is_left(Path(entry.path)):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:  # of a former version
                    Path(entry.path).unlink(missing_ok=True)


def is_unfinished(name: str) -> bool:
    """Return whether a file or folder of this name is one that `replacing` makes and removes."""
    return _UNFINISHED.fullmatch(name) is not None


def is_left(path: Path) -> bool:
    """Return whether the process that was making `path` is gone.

    Its name says which process of which computer that was. Of this computer: nothing runs under its
    number, and nothing was written for an hour. Of another, or unnamed: not for a day.
    """
    named = _UNFINISHED.fullmatch(path.name)
    if named is None:
        return False
    runs, untouched = _runs(named), time.time() - path.stat().st_mtime
    return not runs and untouched > (LEFT_AFTER if runs is False else 24 * LEFT_AFTER)


def _put_back(path: Path) -> None:
    """End what was killed between the two renames of `replacing_folder`, or just after."""
    for retired in path.parent.glob(f".{glob.escape(path.name)}.*.old"):
        named = _UNFINISHED.fullmatch(retired.name)
        if named and _runs(named) is False:
            if not path.exists():
                retired.replace(path)
            shutil.rmtree(retired, ignore_errors=True)


def _runs(named: re.Match[str]) -> bool | None:
    """Return whether a process of the number in the name runs; None where it is not known."""
    if named["host"] != _host():
        return None
    try:
        os.kill(int(named["process"]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _beside(path: Path, suffix: str) -> Path:
    owner = f"{_host()}+{os.getpid()}.{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{path.name}.{owner}.{suffix}")


def _host() -> str:
    return re.sub(r"[^\w-]+", "-", socket.gethostname())[:40]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _code_of(error: BaseException, path: Path) -> int | None:
    """Return the number of what the disk refused, or None; writers may hide it in their own."""
    cause: BaseException | None = error
    while cause is not None:
        hidden = re.search(r"\(os error (\d+)\)", str(cause))  # safetensors'
        code = int(hidden[1]) if hidden else getattr(cause, "errno", None)
        named = Path(str(getattr(cause, "filename", None) or path))
        is_own = path.is_relative_to(named) or named.is_relative_to(path)
        is_own |= any(part.startswith(f".{path.name}.") for part in named.parts)
        if is_own and code in _NO_ROOM | _NO_PLACE | _NO_FOLDER:
            return code
        cause = cause.__cause__ or cause.__context__
    return None


def _refusal(path: Path, code: int, n_bytes: int | None = None) -> DiskError:
    line = f"`{path}` could not be written: {os.strerror(code)}"
    if code in _NO_ROOM:
        line += f" ({n_bytes:,} bytes are needed)" if n_bytes is not None else ""
        line += "; free some space, or choose another folder, and run again"
    else:
        line += "; check its folder, or choose another, and run again"
    error = DiskError(line)
    error.errno = code
    return error
