"""One of two processes that fit small SAEs in turn and count what a step sends.

`python -m traffic_process RANK PORT FOLDER`; settings come from `FOLDER/runs.json`, rank 0 writes
`FOLDER/traffic.json`.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from benchmarks.traffic import Traffic

WORLD = 2


def bytes_of(run: dict[str, Any], folder: Path) -> dict[str, float]:
    """Return what a process sends a step in a run of four."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    from saerepgeo.cases.separability.module import SeparabilityModule
    from saerepgeo.data.module import ActivationDataModule
    from saerepgeo.sae.sae_source import SAESource

    traffic = Traffic()
    strategy = (
        ModelParallelStrategy(data_parallel_size=1, save_distributed_checkpoint=False)
        if run["is_split"]
        else DDPStrategy()
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=WORLD,
        strategy=strategy,
        max_steps=4,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[traffic],
    )
    source = SAESource(architecture="topk", d_in=32, d_sae=run["d_sae"], options={"k": run["k"]})
    module = SeparabilityModule(source, weight=0.5, lr=1e-2)
    trainer.fit(module, datamodule=ActivationDataModule(**run["data"]))
    return traffic.bytes_per_step


def main(rank: int, port: str, folder: Path) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    runs = json.loads((folder / "runs.json").read_text())
    found = {name: bytes_of(run, folder) for name, run in runs.items()}
    if rank == 0:
        (folder / "traffic.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
