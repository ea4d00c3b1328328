"""A training step beside SAELens' own: python tests/benchmarks/bench_training_step.py

In one process both sides run forward, backward, gradient clipping and Adam on the same weights and
data. A round times one after the other, and the ratio of a round is what is reported: the machine's
other load falls on both. The bound is what no TopK step can do without: the encoder product in bf16
and the selection of the k largest.

On a CUDA device the same command measures 2304→65536, k = 64. `--curve 200` trains both sides and
prints how far their losses part. JumpReLU starts with thresholds that k latents a point pass.
"""

import argparse
import contextlib
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.types import SparseLatents


class Case(NamedTuple):
    """Architecture and sizes of one comparison."""

    architecture: str
    d_in: int
    d_sae: int
    k: int
    batch: int = 4096

    def __str__(self) -> str:
        return f"{self.architecture} {self.d_in}→{self.d_sae}, k {self.k}, batch {self.batch}"


CPU_CASES = (
    Case("topk", 576, 4608, 32),
    Case("topk", 768, 24576, 32),
    Case("batchtopk", 576, 4608, 32),
    Case("jumprelu", 576, 4608, 32),
)
CUDA_CASES = tuple(Case(name, 2304, 65536, 64) for name in ("topk", "batchtopk", "jumprelu"))
LEARNING_RATE = 1e-4

Step = Callable[[torch.Tensor], torch.Tensor]


def lens_step(sae: Any, is_autocast: bool) -> Step:
    """Return what SAETrainer._train_step does, by SAELens' own code."""
    from sae_lens.saes.sae import TrainStepInput

    optimizer = torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE)
    since_fired = torch.zeros(sae.cfg.d_sae, device=sae.W_dec.device)
    frequency = torch.zeros_like(since_fired)
    coefficients = {name: value.value for name, value in sae.get_coefficients().items()}

    def step(batch: torch.Tensor) -> torch.Tensor:
        with autocast(is_autocast, batch.device):
            output = sae.training_forward_pass(
                TrainStepInput(batch, coefficients, since_fired > 1000, 0, False)
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
        return output.loss.detach()

    return step


def our_step(model: Any, is_autocast: bool) -> Step:
    """Return the same step through `SAEModel`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    since_fired = torch.zeros(model.d_sae, device=model.sae.W_dec.device)

    def step(batch: torch.Tensor) -> torch.Tensor:
        with autocast(is_autocast, batch.device):
            output = model(batch, since_fired > 1000)
            loss = (output.recons - batch).square().sum(dim=1).mean()
            loss = loss + sum(output.losses.values())
        with torch.no_grad():
            since_fired.add_(1)
            since_fired[fired_latents(output.latents)] = 0
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def fired_latents(latents: torch.Tensor | SparseLatents) -> torch.Tensor:
    """Return the numbers (or a mask) of the latents that are active anywhere."""
    if isinstance(latents, SparseLatents):
        return latents.indices[latents.values > 0]
    return (latents > 0).any(dim=0)


def bound(model: Any, k: int) -> Step:
    """Return the encoder product in bf16 and the selection, nothing else."""
    weight = model.sae.W_enc.detach().bfloat16()

    @torch.no_grad()
    def step(batch: torch.Tensor) -> torch.Tensor:
        return (batch.bfloat16() @ weight).topk(k, dim=1, sorted=False).values

    return step


def autocast(enabled: bool, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context both sides run their forward in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def seconds(step: Step, batches: list[torch.Tensor]) -> float:
    """Return the mean seconds of a step."""
    is_cuda = batches[0].is_cuda
    if is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for batch in batches:
        step(batch)
    if is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(batches)


def made(case: Case, device: str) -> Any:
    """Return an untrained model; thresholds let k latents of a point of unit noise pass."""
    k = {} if case.architecture == "jumprelu" else {"k": case.k}
    model = new_sae(case.architecture, d_in=case.d_in, d_sae=case.d_sae, device=device, **k).train()
    if case.architecture == "jumprelu":
        tail = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - case.k / case.d_sae))
        with torch.no_grad():
            model.sae.threshold.fill_(float(tail))
    return model


def compare(case: Case, rounds: int, steps: int, device: str) -> None:
    """Time both sides in turn and print rows of the README's table."""
    model = made(case, device)
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(case.batch, case.d_in, generator=generator).to(device) for _ in range(steps)
    ]
    contenders = {
        f"{side} {precision}": make(copy.deepcopy(sae), precision == "bf16 autocast")
        for precision in ("float32", "bf16 autocast")
        for side, make, sae in (("saelens", lens_step, model.sae), ("ours", our_step, model))
    }
    if case.architecture == "topk":
        contenders["bound"] = bound(model, case.k)
    for step in contenders.values():
        step(batches[0])
    timed = [
        {name: seconds(step, batches) for name, step in contenders.items()} for _ in range(rounds)
    ]
    for precision in ("float32", "bf16 autocast"):
        pair = (f"saelens {precision}", f"ours {precision}")
        print(f"| {case}, {precision} {row(timed, *pair)}", flush=True)
    if "bound" in contenders:
        print(f"| {case}, bf16 autocast to the bound {row(timed, 'ours bf16 autocast', 'bound')}")


def row(timed: list[dict[str, float]], over: str, under: str) -> str:
    """Return median seconds of both and minimum / median / maximum of their ratio."""
    ratios = sorted(times[over] / times[under] for times in timed)
    middle = [statistics.median(times[name] for times in timed) for name in (under, over)]
    spread = f"{ratios[0]:.1f} / {statistics.median(ratios):.1f} / {ratios[-1]:.1f}"
    return f"| {middle[0]:.3g} s | {middle[1]:.3g} s | {spread} ({len(timed)} rounds) |"


def compare_curves(case: Case, steps: int, device: str) -> None:
    """Train both sides from the same weights on the same data; print how far the losses part."""
    directions = torch.randn(2 * case.d_in, case.d_in, generator=torch.Generator().manual_seed(0))
    for precision in ("float32", "bf16 autocast"):
        model = made(case, device)
        lens = lens_step(copy.deepcopy(model.sae), precision != "float32")
        ours = our_step(model, precision != "float32")
        generator, losses = torch.Generator().manual_seed(1), []
        for _ in range(steps):
            active = torch.rand(case.batch, len(directions), generator=generator) < 0.02
            strength = torch.rand(case.batch, len(directions), generator=generator) * active
            batch = (strength @ directions).to(device)
            losses.append(torch.stack([ours(batch), lens(batch)]).cpu())
        found, expected = torch.stack(losses, dim=1)
        apart = float(((found - expected) / expected).abs().max())
        print(
            f"| {case}, {precision} | {steps} steps | loss {expected[0]:.1f} → {expected[-1]:.1f} "
            f"| {apart:.1e} |",
            flush=True,
        )


def main() -> None:
    """Print one row per comparison."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps per round and contender")
    parser.add_argument("--device", default=device)
    parser.add_argument("--case", type=int, nargs="*", help="numbers of the cases; default: all")
    parser.add_argument("--batch", type=int, help="points a step, instead of the cases' own")
    parser.add_argument("--curve", type=int, default=0, metavar="STEPS", help="compare losses")
    options = parser.parse_args()
    sae_lens()
    cases = CPU_CASES if options.device == "cpu" else CUDA_CASES
    chosen = [cases[i] for i in options.case] if options.case is not None else cases
    for case in chosen:
        sized = case._replace(batch=options.batch) if options.batch else case
        if options.curve:
            compare_curves(sized, options.curve, options.device)
        else:
            compare(sized, options.rounds, options.steps, options.device)


if __name__ == "__main__":
    main()
