"""What `--help` costs beside importing Lightning: python tests/benchmarks/bench_help.py

Each runs in a process of its own; processor time is compared, which other load leaves alone.
"""

import os
import statistics
import subprocess
import sys

LIMIT = 1.3
ROUNDS = 3


def cpu_seconds(*arguments: str) -> float:
    """Return the processor time of a Python process with these arguments."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    """Print one row for the program and each subcommand."""
    for command in ([], ["fit"], ["validate"], ["test"]):
        pairs = [
            (
                cpu_seconds("-m", "saerepgeo", *command, "--help"),
                cpu_seconds("-c", "import lightning.pytorch.cli"),
            )
            for _ in range(ROUNDS)
        ]
        ours, peer = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        name = " ".join(["saerepgeo", *command, "--help"])
        print(f"| {name} | {ours:.2f} s | {peer:.2f} s | {ratio:.2f} (limit {LIMIT}) |", flush=True)


if __name__ == "__main__":
    main()
