"""Rank of a stream at flat memory: python tests/benchmarks/bench_sketch.py [--points 1000000]"""

import argparse

import torch
from sklearn.decomposition import IncrementalPCA
from timing import compare, peak_mib, seconds

from saerepgeo.metrics import NumericalRank

DIM, RANK, SIZE, BATCH = 576, 40, 64, 8192


def batch_of(seed: int, mixing: torch.Tensor) -> torch.Tensor:
    """Return one batch of points that span `RANK` directions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, RANK, generator=generator) @ mixing


def main() -> None:
    """Stream the points, watch the memory, then compare the time a point with a peer's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=100_000)
    n_batches = -(-parser.parse_args().points // BATCH)
    mixing = torch.randn(RANK, DIM, generator=torch.Generator().manual_seed(0))
    metric, marks = NumericalRank(sketch_size=SIZE), {}

    def stream() -> None:
        for step in range(n_batches):
            metric.update(batch_of(step, mixing))
            marks[int(metric.n_points)] = peak_mib()

    took = seconds(stream)
    tenth, last = list(marks)[n_batches // 10], list(marks)[-1]
    print(f"{last} points in {took:.0f} s, rank {int(metric.compute())}, planted {RANK}")
    print(f"peak memory {marks[tenth]:.0f} MiB at {tenth}, {marks[last]:.0f} MiB at {last} points")
    x = torch.cat([batch_of(seed, mixing) for seed in range(2)])
    compare(
        f"spectrum of {len(x)}×{DIM}, {SIZE} directions",
        lambda: NumericalRank(sketch_size=SIZE).update(x),
        lambda: IncrementalPCA(SIZE, batch_size=2 * SIZE).fit(x.numpy()),
    )


if __name__ == "__main__":
    main()
