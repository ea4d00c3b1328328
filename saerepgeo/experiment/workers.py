"""Worker processes of an experiment: started, waited for, and stopped together."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

SIGNALLED = 128
"""An exit status above it is this and the number of a signal."""
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818  (control flow, not an error)
    """Stopped at a signal before the end; what was begun goes on when it is run again.

    `status` is 128 and the signal, `where` the cell, or empty.
    """

    def __init__(self, status: int, where: str = "") -> None:
        super().__init__(status, where)
        self.status, self.where = status, where


def set_threads(n_threads: int | None) -> None:
    """Let this process compute on `n_threads` threads; None: as it is set."""
    if n_threads is not None:
        import torch

        torch.set_num_threads(n_threads)


def own_gpu(number: int) -> dict[str, str]:
    """Return the environment that shows worker `number` one of several GPUs, in turn."""
    import torch

    n_gpus = torch.cuda.device_count()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n_gpus)))
    return {"CUDA_VISIBLE_DEVICES": shown.split(",")[number % n_gpus]} if n_gpus > 1 else {}


def wait_for_workers(
    arguments: Sequence[str],
    n_processes: int,
    n_threads: int | None = None,
    names_devices: bool = False,
) -> list[int]:
    """Run `n_processes` workers with the arguments of `experiment`; return their exit statuses.

    Each sees one GPU, unless the arguments name devices (`names_devices`) and hold for all alike.
    SIGTERM is passed on to them, and none is left behind. Raises Interrupted where a signal was
    meant to stop this process or one of them.
    """
    command = [sys.executable, "-m", "saerepgeo", "experiment", *arguments]
    n_threads = n_threads or max(1, (os.cpu_count() or 1) // n_processes)
    environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
    workers = [
        subprocess.Popen(
            [*command, f"--worker={number}"],
            env=environment | ({} if names_devices else own_gpu(number)),
        )
        for number in range(n_processes)
    ]
    received: list[int] = []

    def stop(number: int, *_: object) -> None:
        received.append(number)
        if number == signal.SIGTERM:  # the terminal sends Ctrl-C to the workers as well
            for worker in workers:
                worker.terminate()

    previous = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        statuses = [worker.wait() for worker in workers]
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    ends = [SIGNALLED - status if status < 0 else status for status in statuses]
    stopped = [SIGNALLED + number for number in received]
    stopped += [status for status in ends if status - SIGNALLED in STOPPING]
    if stopped:
        raise Interrupted(stopped[0])
    return ends
