"""Minimum spanning tree beside SciPy's dense way: python tests/benchmarks/bench_graphs.py"""

import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from timing import compare, peak_mib, seconds

from saerepgeo.geometry import mst_weight

DIM = 50


def main() -> None:
    """Compare the time at 3,000 points, and the memory at 30,000 with the peer's matrix alone."""
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(30_000, DIM, generator=generator)
    few = many[:3000].double()
    mst_weight(few)
    before = peak_mib()
    took = seconds(lambda: mst_weight(many))
    used, matrix = max(peak_mib() - before, many.nbytes / 2**20), 8 * len(many) ** 2 / 2**20
    print(
        f"MST of {len(many)}×{DIM}: {took:.1f} s, {used:.0f} MiB; the N×N matrix alone "
        f"{matrix:.0f} MiB: {100 * used / matrix:.2f} %"
    )
    found = {}

    def ours() -> None:
        found["ours"] = float(mst_weight(few))

    def peer() -> None:
        found["peer"] = float(minimum_spanning_tree(squareform(pdist(few.numpy()))).sum())

    compare(f"MST of {len(few)}×{DIM}", ours, peer)
    print(f"weights: ours {found['ours']:.9f}, peer {found['peer']:.9f}")


if __name__ == "__main__":
    main()
