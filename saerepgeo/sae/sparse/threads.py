"""Parts of one work on all of torch's threads, each part on one of them.

NumPy and a short product keep one thread busy while torch's others spin, waiting for the next
product. So every thread takes whole parts: product, selection and all.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def map_in_threads(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return `work` of every part, in order, as if it were called in a loop.

    `work` runs outside the caller's autocast, which torch keeps per thread, without gradients, and
    on one thread, so that its bits are the same on any number of them.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1 or len(parts) == 1:
        return [work(part) for part in parts]

    def alone(part: Part) -> Result:
        with torch.no_grad():
            return work(part)

    return list(_pool(n_threads, os.getpid()).map(alone, parts))


@cache
def _pool(n_threads: int, _: int) -> ThreadPoolExecutor:
    """Return threads whose operations take one thread each; a forked process has none of them."""
    pool, all_there = ThreadPoolExecutor(n_threads, "selection"), Barrier(n_threads)

    def start(_: int) -> None:
        torch.get_num_threads()  # a thread takes the common number at its first look
        torch.set_num_threads(1)
        all_there.wait()

    list(pool.map(start, range(n_threads)))
    torch.set_num_threads(n_threads)  # of the threads to come
    return pool
