"""How the C library's allocator treats the large tensors that every step frees and wants again."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
LARGEST_KEPT = 64 * 2**20
"""Larger tensors (a batch's log-probabilities over the vocabulary) still go back when freed."""
KEPT = 512 * 2**20
ENVIRONMENT = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Keep up to 512 MiB of freed memory in the process; return whether the setting was made.

    Else glibc returns blocks of megabytes to the system, which has to clear their pages when the
    next layer asks for as much: up to 40 % of a language model's time on the CPU, for a tenth of
    peak memory. Without effect where the C library is not glibc, or where the environment sets the
    allocator's thresholds.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in ENVIRONMENT):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, KEPT))
