"""Two data-parallel processes on a core each against one process on one core: points per second.

python tests/benchmarks/bench_scale_out.py [--rounds 5] [--steps 2] [--batch-size 4096]

The whole of a fit is timed: SmolLM2 up to block 10, the SAE's step (TopK, k = 32) and the
all-reduce of its gradients. All processes stay up and take turns, so that other load on the
machine falls on both sides. Needs two free cores; processor time, given as well, does not, but
leaves out what the processes wait for each other.
"""

import argparse
import os
import socket
import statistics
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from traffic import Traffic

SIZES = {"small": (576, 4608), "large": (576, 65536)}


class Turns(Callback):
    """Run `n_steps`, the making of their batches included, whenever the pipe says so.

    The answer is how long they took, by the clock and of the processor.
    """

    def __init__(self, pipe: Any, n_steps: int) -> None:
        self.pipe, self.n_steps, self.start = pipe, n_steps, (0.0, 0.0)

    def on_train_start(self, *_: Any) -> None:
        self._wait()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step % self.n_steps == 0:
            clock, processor = self.start
            self.pipe.send((time.perf_counter() - clock, time.process_time() - processor))
            if trainer.global_step < trainer.max_steps:
                self._wait()

    def _wait(self) -> None:
        self.pipe.recv()
        self.start = (time.perf_counter(), time.process_time())


def work(rank: int, world: int, port: int, pipe: Any, options: argparse.Namespace) -> None:
    """Train as process `rank` of `world`, pinned to the core of that number."""
    from saerepgeo.cases.separability.module import SeparabilityModule
    from saerepgeo.data.module import ActivationDataModule
    from saerepgeo.sae.sae_source import SAESource

    warnings.simplefilter("ignore")
    os.sched_setaffinity(0, {rank})
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    n_steps = options.steps * (options.rounds + 1)
    traffic = Traffic(first_step=1, n_steps=1)
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy=DDPStrategy() if world > 1 else "auto",
        max_steps=n_steps,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        callbacks=[traffic, Turns(pipe, options.steps)],
    )
    d_in, d_sae = SIZES[options.size]
    source = SAESource(architecture="topk", d_in=d_in, d_sae=d_sae, options={"k": 32})
    data = ActivationDataModule(
        batch_size=options.batch_size,
        window_steps=options.steps,
        cache_stream=False,  # one side would read what the other has written
    )
    trainer.fit(SeparabilityModule(source), datamodule=data)
    pipe.send(traffic.bytes_per_step)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(world: int, options: argparse.Namespace) -> list[Any]:
    """Start `world` processes that train together; return the pipes to them."""
    context, port, pipes = torch.multiprocessing.get_context("spawn"), free_port(), []
    for rank in range(world):
        ours, theirs = context.Pipe()
        arguments = (rank, world, port, theirs, options)
        context.Process(target=work, args=arguments, daemon=True).start()
        pipes.append(ours)
    return pipes


def turn(pipes: list[Any]) -> tuple[float, float]:
    """Return the longest of the processes' turns, by the clock and of the processor."""
    for pipe in pipes:
        pipe.send(None)
    clocks, processors = zip(*(pipe.recv() for pipe in pipes), strict=True)
    return max(clocks), max(processors)


def report(name: str, rounds: list[tuple[float, float]], n_points: int) -> None:
    """Print a row: rates of two processes and of one, and the ratio of their times by round."""
    ratios = sorted(alone / together for alone, together in rounds)
    alone, together = (n_points / statistics.median(times) for times in zip(*rounds, strict=True))
    spread = f"{ratios[0]:.2f} / {statistics.median(ratios):.2f} / {ratios[-1]:.2f}"
    print(
        f"| {name} | {together:,.0f} points/s | {alone:,.0f} points/s | {spread} "
        f"({len(rounds)} rounds) |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--size", choices=SIZES, default="small")
    options = parser.parse_args()
    one, two = start(1, options), start(2, options)
    turn(one), turn(two)  # the first window, and every first call
    rounds = [(turn(one), turn(two)) for _ in range(options.rounds)]
    n_points = options.batch_size * options.steps
    d_in, d_sae = SIZES[options.size]
    for number, what in enumerate(("by the clock", "of the processor")):
        times = [(alone[number], together[number]) for alone, together in rounds]
        report(f"{d_in}→{d_sae}, batch {options.batch_size}, {what}", times, n_points)
    sizes = [pipe.recv() for pipe in (*one, *two)][-1]
    print("sent in a step:", {name: f"{size / 2**20:.2f} MiB" for name, size in sizes.items()})


if __name__ == "__main__":
    main()
