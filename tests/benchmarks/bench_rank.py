"""Rank of wide latents beside NumPy on the Gram matrix: python tests/benchmarks/bench_rank.py"""

import numpy as np
import torch
from timing import compare

from saerepgeo.geometry import numerical_rank, singular_values

N_POINTS, D_SAE, RANK = 300, 4608, 20


def main() -> None:
    """Compare on planted rank 20, which both must find."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(N_POINTS, RANK, generator=generator, dtype=torch.float64)
    latents = left @ torch.randn(RANK, D_SAE, generator=generator, dtype=torch.float64)
    gram = (latents.T @ latents).numpy()
    found = {}

    def ours() -> None:
        sv = singular_values(latents)
        found["ours"] = int(numerical_rank(sv, (N_POINTS, D_SAE)))

    def peer() -> None:
        found["peer"] = int(np.linalg.matrix_rank(gram))

    compare(f"rank of {N_POINTS}×{D_SAE}", ours, peer, rounds=2)
    print(f"ranks: ours {found['ours']}, peer {found['peer']}, planted {RANK}")


if __name__ == "__main__":
    main()
