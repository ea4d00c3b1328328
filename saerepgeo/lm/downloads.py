"""What goes wrong between a hub and the disk: said in one line, and damaged files taken away."""

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from saerepgeo.lm.sums import file_sum

Problem = Literal["gated", "missing", "absent file", "offline", "disk", "interrupted", "damaged"]

_CLASSES: dict[Problem, tuple[str, ...]] = {
    "gated": ("GatedRepoError",),
    "missing": ("RepositoryNotFoundError",),
    "offline": ("LocalEntryNotFoundError", "OfflineModeIsEnabled"),
    "absent file": ("RevisionNotFoundError", "RemoteEntryNotFoundError", "EntryNotFoundError"),
    "damaged": ("SafetensorError", "UnpicklingError", "JSONDecodeError"),
}
_BY_CLASS = {name: problem for problem, names in _CLASSES.items() for name in names}
_LOGIN = "run `hf auth login` or set HF_TOKEN"
_REASONS: dict[Problem, str] = {
    "gated": f"is gated: accept its terms at https://huggingface.co/{{repository}}, then {_LOGIN}",
    "missing": f"is not on the hub, or is private; check the spelling, or {_LOGIN}",
    "absent file": "is not complete: the repository {repository} lacks a file that it needs; check "
    "that name and kind of model belong together",
    "offline": "could not be fetched: it is not in the local cache and the hub is out of reach; "
    "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local folder",
    "disk": "did not fit on the disk; free some space, or point HF_HOME at a larger disk, and run "
    "again",
    "interrupted": "was cut off while it was fetched; run again, finished files are kept",
    "damaged": "arrived damaged: a file's content is not what the hub announced; what was damaged "
    "has been removed, run again",
}
_ERRORS: dict[Problem, type[Exception]] = {
    "gated": PermissionError,
    "missing": PermissionError,
    "absent file": ValueError,
    "disk": OSError,
}
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # git's sha1, or sha256 of a large file


def problem_of(error: BaseException) -> Problem | None:
    """Return what an exception of the hub's client, or of reading its files, comes down to.

    >>> problem_of(OSError(errno.ENOSPC, "No space left on device"))
    'disk'
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    found = [kind for kind in map(_problem_by_class, causes) if kind is not None]
    for decisive in ("disk", "gated", "missing", "offline"):  # the rest may follow from these
        if decisive in found:
            return decisive
    found += [kind for kind in map(_problem_by_answer, causes) if kind is not None]
    return found[0] if found else None


def _problem_by_class(error: BaseException) -> Problem | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "disk"
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((_BY_CLASS[name] for name in names if name in _BY_CLASS), None)


def _problem_by_answer(error: BaseException) -> Problem | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "gated"
    is_transfer = type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3"))
    is_short = "Consistency check failed" in str(error)
    return "interrupted" if is_transfer or is_short or status is not None else None


@contextmanager
def hub_files(kind: str, name: str, repository: str | None = None) -> Iterator[None]:
    """Fetch and read files of a hub repository inside; check their sums on the way out.

    The hub's client checks the length of what it fetches and not its content. A new file is checked
    once; one that is not what the hub announced is deleted, so that the next run fetches it again.

    Raises ValueError, PermissionError, ConnectionError or OSError: one line that says why `kind`
    `name` could not be had and what to do. Errors of another origin pass.
    """
    repository = name if repository is None else repository

    def explained(problem: Problem) -> Exception:
        reason = _REASONS[problem].format(repository=repository)
        return _ERRORS.get(problem, ConnectionError)(f"{kind} `{name}` {reason}")

    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        problem = problem_of(error)
        if problem not in ("gated", "missing", "offline", "disk") and discard_damaged(repository):
            problem = "damaged"
        if problem is None:
            raise
        raise explained(problem) from error
    if discard_damaged(repository):
        raise explained("damaged")


def discard_damaged(repository: str) -> list[str]:
    """Delete cached files of a hub repository whose sum is not their name; return those names.

    The hub's client names what it fetches by the sum that the hub announced: sha256 of large
    files, git's sha1 of small ones.
    """
    from huggingface_hub import constants

    folder = "--".join(["models", *repository.split("/")])
    damaged = []
    for blob in sorted(Path(constants.HF_HUB_CACHE, folder, "blobs").glob("*")):
        if not _BLOB.fullmatch(blob.name) or not blob.is_file():
            continue
        if _sum_like(blob) != blob.name:
            content = blob.resolve()  # newer clients link to one store for all repositories
            blob.unlink()
            content.unlink(missing_ok=True)
            damaged.append(blob.name)
    return damaged


def _sum_like(blob: Path) -> str:
    """Return the file's sum of the sort that its name is."""
    if len(blob.name) == 64:
        return file_sum(blob)
    digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
    with blob.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()
