"""Side by side in one process: what the benchmarks of the geometry functions share."""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds(run: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(name: str, ours: Callable[[], Any], peer: Callable[[], Any], rounds: int = 5) -> None:
    """Time both in turn, so that other load falls on both; print a row of the README's table."""
    if rounds > 1:
        ours()  # the first call pays for imports and pages; a peer of minutes does not notice
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    ratios = sorted(theirs / mine for mine, theirs in pairs)
    mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    spread = f"{ratios[0]:.1f} / {statistics.median(ratios):.1f} / {ratios[-1]:.1f}"
    print(f"| {name} | {mine:.3g} s | {theirs:.3g} s | {spread} ({rounds} rounds) |", flush=True)


def peak_mib() -> float:
    """Return the largest resident memory this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
