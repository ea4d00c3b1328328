"""Calls of one function, spread over processes by Ray; without it one after the other, here."""

import importlib
import importlib.util
import logging
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from saerepgeo.bounds import NotNegative, PositiveInt, Text
from saerepgeo.callbacks.processes import SIGNALS, Stopped, listen
from saerepgeo.files import is_url

SIGNALLED = 128
"""An exit status above it is this and the number of a signal."""
DIED = "its process ended by a signal, or was killed for want of memory"
PATIENCE = 60.0
"""Seconds for which workers may end the step that they are in."""
OBJECT_STORE = 80 * 2**20
"""Bytes of memory that a session of our own shares: results are small."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_DISABLE_WORKER_LOG_PREFIX": "1",
    "RAY_worker_niceness": "0",  # its workers would give way to all else
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a call without a share of GPUs sees all
}
"""Environment: no reports to Ray's makers; what workers print comes as it is."""


@dataclass(kw_only=True)
class Engine:
    """Where calls run.

    Attributes:
        n_processes: calls that run at once. One: in this process, unless there is an `address`.
        n_threads: threads of each; by default its share of the cores here, one in a cluster.
        address: of a Ray cluster to use, `auto` or host:port; by default its own, on this computer.
        gpus_per_cell: GPUs that a call sees, or its share of one; by default what is there, dealt
            out, at most one each. 0: it sees all, and its settings say which it takes.
        max_attempts: times a call is tried that ends with its process, or, of an experiment's cell,
            in an error.
    """

    n_processes: PositiveInt = 1
    n_threads: PositiveInt | None = None
    address: Text | None = None
    gpus_per_cell: NotNegative | None = None
    max_attempts: PositiveInt = 2

    @property
    def cores(self) -> int:
        """Threads of each process."""
        share = 1 if self.address else (os.cpu_count() or 1) // self.n_processes
        return self.n_threads or max(1, share)

    @property
    def uses_ray(self) -> bool:
        """Whether calls run in other processes."""
        is_wanted = self.n_processes > 1 or self.address is not None
        return is_wanted and importlib.util.find_spec("ray") is not None

    def gpus(self, n_gpus: float) -> float:
        """Return the share of `n_gpus` that each call gets: `n_processes` fit on them at once."""
        if self.gpus_per_cell is not None or not n_gpus:
            return self.gpus_per_cell or 0.0
        return 1 / math.ceil(self.n_processes / n_gpus)


class Ended(NamedTuple):
    """How a call went: `number` is its place in the list, `error` why it has no `value`."""

    number: int
    value: Any = None
    error: Exception | None = None


@contextmanager
def only_run(output: str | Path) -> Iterator[None]:
    """Hold a folder of results; ValueError where another run does, here or where it is mounted.

    A URL is not held.
    """
    if is_url(output):
        yield
        return
    path = Path(output) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"`output` {output} is in use by another run: wait for its end, or name another folder"
        ) from None


def ended_calls(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], engine: Engine
) -> Iterator[Ended]:
    """Call `function`, which a name leads to, with each entry of `calls`; yield them as they end.

    An entry is taken when its turn has come. An exception ends its call alone. A call whose process
    dies is made again, `max_attempts` times in all. Raises Stopped at SIGINT or SIGTERM, once the
    functions, which get SIGINT, have ended.
    """
    if engine.uses_ray:
        return _by_ray(function, calls, engine)
    is_wanted = engine.n_processes > 1 or engine.address is not None
    why = ": Ray is not installed, `pip install saerepgeo[cluster]`" if is_wanted else ""
    print(f"one after the other, in this process{why}", flush=True)
    return _here(function, calls, engine)


def _here(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], engine: Engine
) -> Iterator[Ended]:
    set_threads(engine.n_threads)
    for number, call in enumerate(calls):
        try:
            ended = Ended(number, function(*call))
        except Exception as error:
            ended = Ended(number, error=error)
        yield ended


def _by_ray(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], engine: Engine
) -> Iterator[Ended]:
    waiting, running = enumerate(calls), dict[Any, int]()
    with _noted_signals() as received, _session(engine) as ray:
        gpus = engine.gpus(ray.cluster_resources().get("GPU", 0))
        options = {"num_cpus": engine.cores, "num_gpus": gpus, "name": function.__name__}
        task = ray.remote(max_retries=engine.max_attempts - 1, **options)(_in_worker)
        try:
            while True:
                for number, call in islice(waiting, engine.n_processes - len(running)):
                    running[task.remote(function, call, engine.cores, os.getcwd())] = number
                if not running:
                    return
                for done in ray.wait(list(running), timeout=0.1)[0]:
                    yield _ended(ray, done, running.pop(done))
                if received:
                    raise Stopped(received[0])
        finally:
            _end(ray, list(running), received)


def _ended(ray: Any, done: Any, number: int) -> Ended:
    try:
        return Ended(number, ray.get(done))
    except ray.exceptions.RayTaskError as error:
        return Ended(number, error=error.cause)
    except ray.exceptions.RayError as error:
        return Ended(number, error=OSError(f"{DIED} ({type(error).__name__})"))


def _in_worker(
    function: Callable[..., Any], call: tuple[Any, ...], n_threads: int, folder: str
) -> Any:
    """Call the function as a command of its own would; a task has its worker's main thread."""
    os.chdir(folder)
    logging.disable(logging.INFO)  # Lightning's remarks, from every process
    set_threads(n_threads)
    before, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    listen()
    try:
        return function(*call)
    except Stopped as stopped:
        if stopped.status == SIGNALLED + signal.SIGTERM:  # for this worker: another goes on
            os.kill(os.getpid(), signal.SIGKILL)
        return None  # the driver has cancelled the call
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(ray: Any, running: Sequence[Any], received: Sequence[int]) -> None:
    """Stop what runs, and wait until it has; not after a second signal."""
    for each in running:
        ray.cancel(each)
    until = time.monotonic() + PATIENCE
    while running and time.monotonic() < until and len(received) < 2:
        running = ray.wait(list(running), num_returns=len(running), timeout=0.1)[1]


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Give a list that SIGINT and SIGTERM are added to, in place of what they would do."""
    received: list[int] = []
    before = {n: signal.signal(n, lambda number, _: received.append(number)) for n in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _session(engine: Engine) -> Iterator[Any]:
    """Give Ray: a session that is there, that of `address`, or one of our own that ends here."""
    _quiet(is_own := engine.address is None)
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    folder = tempfile.mkdtemp(prefix="ray-") if is_own else None
    own = {
        "num_cpus": engine.n_processes * engine.cores,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE,
        "_temp_dir": folder,
    }
    try:
        ray.init(engine.address or "local", logging_level="ERROR", **(own if is_own else {}))
        for number, handler in handlers.items():  # Ray puts one of its own
            signal.signal(number, handler)
        yield ray
    except SystemExit as error:  # what that one raises
        raise Stopped(signal.SIGTERM) from error
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _quiet(is_own: bool) -> None:
    """Set what Ray reads when it is imported and when it starts."""
    told = dict(QUIET)
    if is_own:  # a secret of its own: Ray would leave one in the user's home
        told["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        if "ray" not in sys.modules:
            told["RAY_AUTH_MODE"] = "token"
    for name, value in told.items():
        os.environ.setdefault(name, value)


def set_threads(n_threads: int | None) -> None:
    """Let this process compute on `n_threads` threads; None: as it is set."""
    if n_threads is not None:
        import torch

        torch.set_num_threads(n_threads)
