"""What a regularizer adds to a training step: python tests/benchmarks/bench_separability.py

A step of the default size (4096 points, 256 of them labeled with 72 items in three concepts,
576→4608 TopK with k = 32), with and without the term, in turn in one process. The ratio of a round
is the step with the term over the step without.
"""

import argparse
import json
import time

import torch
from torch import Tensor

from saerepgeo.cases.separability.losses import (
    Regularizer,
    mean_squared_error,
    reduced_moments,
    separability_term,
)
from saerepgeo.cases.separability.optimization import adam, clip_gradients_, parameter_groups
from saerepgeo.geometry.separation import centroids, pairwise_distances
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.model import SAEModel

N_ITEMS, N_CONCEPTS, N_LABELED, N_POINTS, D_IN = 72, 3, 256, 4096, 576
KINDS: tuple[Regularizer | None, ...] = (None, "aedp", "fisher", "gromov_wasserstein")


class Step:
    """One SAE, one batch, and the step of `SeparabilityModule` without Lightning around it."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.sae: SAEModel = new_sae("topk", d_in=D_IN, d_sae=4608, k=32).train()
        self.optimizer = adam(parameter_groups(self.sae, 1e-4, (0.9, 0.999), 1.0))
        self.labels = torch.arange(N_LABELED) % N_ITEMS
        self.residuals = torch.randn(N_POINTS, D_IN, generator=generator)
        centers = torch.randn(N_ITEMS, D_IN, generator=generator)
        self.residuals[:N_LABELED] += 2 * centers[self.labels]
        size = N_ITEMS // N_CONCEPTS
        self.concepts = [range(i * size, (i + 1) * size) for i in range(N_CONCEPTS)]
        self.plans: dict[tuple[int, ...], Tensor] = {}
        with torch.no_grad():
            latents = self.sae.encode(self.residuals[:N_LABELED]).latents
            effective = self.sae.effective_latents(latents)
            moments = reduced_moments(effective, self.labels, N_ITEMS)
            self.target = 1.2 * pairwise_distances(centroids(moments))

    def seconds(self, kind: Regularizer | None, is_autocast: bool) -> float:
        """Return the time of one step."""
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            out = self.sae(self.residuals)
            loss = mean_squared_error(out.recons, self.residuals) / D_IN + sum(out.losses.values())
        if kind is not None:
            rows = torch.arange(N_POINTS) < N_LABELED
            effective = self.sae.effective_latents(out.latents, rows)
            moments = reduced_moments(effective, self.labels, N_ITEMS)
            term = separability_term(
                moments, self.concepts, kind, "increase", self.target, self.plans
            )
            loss = loss + 0.1 * term.float()
        loss.backward()
        self.sae.remove_parallel_gradient_()
        clip_gradients_(self.sae, 1.0, "norm")
        self.optimizer.step()
        self.sae.normalize_decoder_()
        self.optimizer.zero_grad()
        return time.perf_counter() - start


def main() -> None:
    """Print one JSON line per precision and regularizer."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    step = Step()
    for is_autocast in (False, True):
        for kind in KINDS:
            step.seconds(kind, is_autocast)
        timed = [{kind: step.seconds(kind, is_autocast) for kind in KINDS} for _ in range(rounds)]
        for kind in KINDS[1:]:
            ratios = sorted(row[kind] / row[None] for row in timed)
            spread = [ratios[i] for i in (0, rounds // 4, rounds // 2, 3 * rounds // 4, -1)]
            names = ("min", "lower quartile", "median", "upper quartile", "max")
            print(
                json.dumps(
                    {"autocast": is_autocast, "regularizer": kind, "rounds": rounds}
                    | {n: round(v, 3) for n, v in zip(names, spread, strict=True)}
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
