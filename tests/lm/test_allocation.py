"""Freed memory stays in the process: the system hands out no new pages for the next tensor."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from saerepgeo.lm.allocation import keep_freed_memory
made = keep_freed_memory() if {keep} else None
sizes = [40 * 2**20, 50 * 2**20]  # beyond what glibc comes to keep by itself
def use():
    tensors = [torch.ones(size // 4) for size in sizes]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        use()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(), faults()
print(made, faults())
"""


def faults(keep: bool, **environment: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)],
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MALLOC")} | environment,
    )
    made, number = done.stdout.split()
    return made, int(number)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_used_again_without_new_pages():
    _, plain = faults(keep=False)
    made, kept = faults(keep=True)
    assert made == "True"
    assert plain > 100_000  # 5 times 90 MiB in pages of 4 KiB
    assert kept < 1_000


def test_thresholds_of_the_environment_stand():
    made, _ = faults(keep=True, MALLOC_TRIM_THRESHOLD_="1000000")
    assert made == "False"
