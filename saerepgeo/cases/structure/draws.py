"""Independent draws on as many threads as torch may use, and a word after each that is done."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["in_parallel"]

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_parallel(
    function: Callable[[Given], Made],
    given: Sequence[Given],
    report: Callable[[], None] = lambda: None,
) -> list[Made]:
    """Return `function` of each of `given`, in order.

    `function` must not change what others read: its randomness is its argument's. Each thread
    computes on one core, without gradients. `report` is called in the calling thread once a
    result; if it raises, as a signal may make it, draws not begun are left.

    >>> in_parallel(lambda x: x * x, [1, 2, 3])
    [1, 4, 9]
    """
    n_workers = min(torch.get_num_threads(), len(given))
    made = []
    if n_workers <= 1:
        for item in given:
            made.append(function(item))
            report()
        return made
    in_thread = torch.no_grad()(function)  # whether gradients are kept is every thread's own
    n_before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for result in pool.map(in_thread, given):
            made.append(result)
            report()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_before)
    return made
