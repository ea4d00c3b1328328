"""One TopK training step beside SAELens' own: python tests/benchmarks/bench_training_step.py

In one process both sides run forward, backward, gradient clipping and Adam on the same weights and
data. A round times one after the other, and the ratio of a round is what is reported: the machine's
other load falls on both. The bound is what no TopK step can do without: the encoder product in bf16
and the selection of the k largest.
"""

import argparse
import contextlib
import copy
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from saerepgeo.sae.build import new_sae
from saerepgeo.sae.lens import sae_lens


class Case(NamedTuple):
    """Sizes of one comparison."""

    d_in: int
    d_sae: int
    k: int
    batch: int


CASES = (Case(576, 4608, 32, 4096), Case(768, 24576, 32, 4096))
LEARNING_RATE = 1e-4


def lens_step(sae: Any, is_autocast: bool, device: str) -> Callable[[torch.Tensor], None]:
    """Return what SAETrainer._train_step does, by SAELens' own code."""
    from sae_lens.saes.sae import TrainStepInput

    optimizer = torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE)
    d_sae = sae.cfg.d_sae
    since_fired = torch.zeros(d_sae, device=device)
    frequency = torch.zeros(d_sae, device=device)

    def step(batch: torch.Tensor) -> None:
        with autocast(is_autocast, device):
            output = sae.training_forward_pass(
                TrainStepInput(batch, {}, since_fired > 1000, 0, False)
            )
            with torch.no_grad():
                firing = output.feature_acts.bool().float()
                fired = firing.sum(-2).bool()
                since_fired.add_(1)
                since_fired[fired] = 0
                frequency.add_(firing.sum(0))
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(model: Any, is_autocast: bool, device: str) -> Callable[[torch.Tensor], None]:
    """Return the same step through `SAEModel`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    since_fired = torch.zeros(model.d_sae, device=device)

    def step(batch: torch.Tensor) -> None:
        with autocast(is_autocast, device):
            output = model(batch, since_fired > 1000)
            loss = (output.recons - batch).square().sum(dim=1).mean()
            loss = loss + sum(output.losses.values())
        with torch.no_grad():
            since_fired.add_(1)
            since_fired[output.latents.indices[output.latents.values > 0]] = 0
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()

    return step


def bound(model: Any, k: int) -> Callable[[torch.Tensor], None]:
    """Return the encoder product in bf16 and the selection, nothing else."""
    weight = model.sae.W_enc.detach().bfloat16()

    @torch.no_grad()
    def step(batch: torch.Tensor) -> None:
        (batch.bfloat16() @ weight).topk(k, dim=1, sorted=False)

    return step


def autocast(enabled: bool, device: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context both sides run their forward in."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled)


def seconds(step: Callable[[torch.Tensor], None], batches: list[torch.Tensor]) -> float:
    """Return the mean seconds of a step."""
    start = time.perf_counter()
    for batch in batches:
        step(batch)
    if batches[0].is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(batches)


def compare(case: Case, rounds: int, steps: int, device: str) -> dict[str, Any]:
    """Return seconds and per-round ratios of one case."""
    model = new_sae("topk", d_in=case.d_in, d_sae=case.d_sae, k=case.k, device=device).train()
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(case.batch, case.d_in, generator=generator).to(device) for _ in range(steps)
    ]
    contenders = {
        "saelens fp32": lens_step(copy.deepcopy(model.sae), False, device),
        "saelens autocast": lens_step(copy.deepcopy(model.sae), True, device),
        "ours fp32": our_step(copy.deepcopy(model), False, device),
        "ours autocast": our_step(copy.deepcopy(model), True, device),
        "bound": bound(model, case.k),
    }
    for step in contenders.values():
        step(batches[0])
    timed = [
        {name: seconds(step, batches) for name, step in contenders.items()} for _ in range(rounds)
    ]
    ratios = {
        "ours fp32 over saelens fp32": ("saelens fp32", "ours fp32"),
        "ours autocast over saelens autocast": ("saelens autocast", "ours autocast"),
        "ours autocast to the bound": ("ours autocast", "bound"),
    }
    return {
        "case": case._asdict(),
        "seconds": {name: spread([row[name] for row in timed]) for name in contenders},
        "ratios": {
            name: spread([row[top] / row[bottom] for row in timed])
            for name, (top, bottom) in ratios.items()
        },
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return min, median and max."""
    ordered = sorted(values)
    return {
        "min": round(ordered[0], 4),
        "median": round(ordered[len(ordered) // 2], 4),
        "max": round(ordered[-1], 4),
    }


def main() -> None:
    """Print one JSON object per case."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps per round and contender")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", type=int, nargs="*", default=range(len(CASES)))
    arguments = parser.parse_args()
    sae_lens()
    for index in arguments.case:
        result = compare(CASES[index], arguments.rounds, arguments.steps, arguments.device)
        print(json.dumps(result, indent=1), flush=True)


if __name__ == "__main__":
    main()
