"""TwoNN beside scikit-dimension: python tests/benchmarks/bench_dimension.py [--points 30000]

The peer's time grows with the square of the points: the default keeps it under half a minute.
"""

import argparse
import warnings

import torch
from timing import compare, peak_mib, seconds

from saerepgeo.geometry import two_nn
from saerepgeo.types import SparseLatents

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from skdim.id import TwoNN

D_SAE, K = 4608, 32


def random_latents(n_points: int) -> SparseLatents:
    """Return `K` random active entries a row."""
    generator = torch.Generator().manual_seed(0)
    sizes = [min(1000, n_points - start) for start in range(0, n_points, 1000)]
    blocks = [torch.rand(size, D_SAE, generator=generator).topk(K).indices for size in sizes]
    return SparseLatents(torch.rand(n_points, K, generator=generator), torch.cat(blocks), D_SAE)


def compare_sparse(n_points: int) -> None:
    """Compare on latents of few active entries; the peer knows dense float64 only."""
    latents = random_latents(n_points)
    before = peak_mib()
    seconds(lambda: two_nn(latents))
    print(f"peak memory of ours over the input: {peak_mib() - before:.0f} MiB")
    dense = latents.to_dense()
    seconds(lambda: two_nn(dense))
    print(f"the same as a dense tensor, peak of the process: {peak_mib():.0f} MiB")
    points, found = dense.double().numpy(), {}
    del dense

    def ours() -> None:
        found["ours"] = float(two_nn(latents))

    def peer() -> None:
        found["peer"] = float(TwoNN().fit(points).dimension_)

    compare(f"TwoNN of {n_points}×{D_SAE}, k={K}", ours, peer, rounds=1)
    print(f"dimensions: ours {found['ours']:.12f}, peer {found['peer']:.12f}")


def compare_dense() -> None:
    """Compare on points without structure to exploit."""
    residuals = torch.randn(5000, 576, generator=torch.Generator().manual_seed(1))
    doubled = residuals.double().numpy()
    compare("TwoNN of 5000×576", lambda: two_nn(residuals), lambda: TwoNN().fit(doubled))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=6000, help="sparse points; 0: dense only")
    n_sparse = parser.parse_args().points
    compare_dense()
    if n_sparse:
        compare_sparse(n_sparse)
