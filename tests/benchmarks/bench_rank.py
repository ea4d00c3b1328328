"""Rank of wide latents beside NumPy: python tests/benchmarks/bench_rank.py [--d-sae 4608]

NumPy decomposes the Gram matrix, in a time that grows with the cube of the width: the default keeps
it at seconds.
"""

import argparse

import numpy as np
import torch
from timing import compare

from saerepgeo.geometry import numerical_rank, singular_values

N_POINTS, RANK = 300, 20


def main() -> None:
    """Compare on planted rank 20, which both must find."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--d-sae", type=int, default=1536)
    d_sae = parser.parse_args().d_sae
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(N_POINTS, RANK, generator=generator, dtype=torch.float64)
    latents = left @ torch.randn(RANK, d_sae, generator=generator, dtype=torch.float64)
    gram = (latents.T @ latents).numpy()
    found = {}

    def ours() -> None:
        sv = singular_values(latents)
        found["ours"] = int(numerical_rank(sv, (N_POINTS, d_sae)))

    def peer() -> None:
        found["peer"] = int(np.linalg.matrix_rank(gram))

    compare(f"rank of {N_POINTS}×{d_sae}", ours, peer, rounds=2 if d_sae > 3000 else 5)
    print(f"ranks: ours {found['ours']}, peer {found['peer']}, planted {RANK}")


if __name__ == "__main__":
    main()
