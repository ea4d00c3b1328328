"""What twelve SAEs in one pass cost beside one: python tests/benchmarks/bench_many.py

Steps of `fit` (4096 points, the shipped model at one hook, 576→2304, TopK with k = 32, nothing
kept on disk), of one SAE and of twelve in turn, each in a process of its own. The ratio of a round
is a step of twelve over twelve steps of one; the goal is at most 0.25. Memory is the process's
largest resident set.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

from lightning.pytorch import Callback, Trainer
from timing import peak_mib

from saerepgeo.cases import SAEFamilyModule
from saerepgeo.cases.separability.family import FamilySAE
from saerepgeo.data import ActivationDataModule

MANY, WINDOW = 12, 4


class Clock(Callback):
    """Note when each step ends: what lies between two includes the model's part of it."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def measured(n_saes: int, n_steps: int, precision: Any) -> dict[str, float]:
    """Return seconds a step over whole windows after the first, and the memory in MiB."""
    clock, new = Clock(), {"architecture": "topk", "d_in": 576, "d_sae": 2304, "weight": 0.0}
    saes = [FamilySAE(name=f"s{n}", seed=n, options={"k": 32}, **new) for n in range(n_saes)]
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            **quiet,
            max_steps=WINDOW + n_steps,
            max_epochs=-1,
            limit_val_batches=0,
            enable_checkpointing=False,
            gradient_clip_val=1.0,
            precision=precision,
            accelerator="cpu",
            callbacks=[clock],
            default_root_dir=folder,
        )
        data = {"concepts": ["days"], "concept_fraction": 0.0, "cache_stream": False}
        trainer.fit(SAEFamilyModule(saes), ActivationDataModule(**data, window_steps=WINDOW))
    seconds = (clock.ends[-1] - clock.ends[WINDOW - 1]) / n_steps
    return {"seconds": seconds, "mib": peak_mib()}


def in_a_process(*options: Any) -> dict[str, float]:
    """Return what a process of its own measures."""
    command = [sys.executable, __file__, "--one", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print one JSON line a round and precision."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4 * WINDOW)
    parser.add_argument("--precisions", nargs="+", default=["bf16-mixed", "32-true"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    if given.one:
        n_saes, n_steps, precision = given.one
        print(json.dumps(measured(int(n_saes), int(n_steps), precision)))
        return
    for number in range(given.rounds):
        for precision in given.precisions:
            order = (1, MANY) if number % 2 == 0 else (MANY, 1)
            found = {n: in_a_process(n, given.steps, precision) for n in order}
            ratio = found[MANY]["seconds"] / (MANY * found[1]["seconds"])
            row = {"precision": precision, "one": found[1], "twelve": found[MANY]}
            print(json.dumps(row | {"ratio": round(ratio, 3)}), flush=True)


if __name__ == "__main__":
    main()
