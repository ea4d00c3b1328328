"""What the tests of real training processes run: a fit on the small model, and a way to die."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback

from saerepgeo.data.contexts import _Tokens

FEW_DRAWS = {"protocols": ["sound"], "n_permutations": 3, "n_nulls": 2, "n_subsamples": 3}
"""Settings of case 2 with which it takes a moment."""


class KillAt(Callback):
    """Send this process a signal in the middle of a step: gradients are there, weights are old."""

    def __init__(self, step: int, signal_name: str = "SIGKILL") -> None:
        self.step, self.number = step, getattr(signal, signal_name)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


class NoteTokenizing(Callback):
    """Write a line into `path` whenever this process tokenizes: its rank, and what of the text."""

    def __init__(self, path: str) -> None:
        gathered = _Tokens._gathered

        def noted(tokens: _Tokens) -> Any:
            with Path(path).open("a") as file:
                file.write(f"{os.environ.get('LOCAL_RANK', '0')} {tokens.split}\n")
            return gathered(tokens)

        _Tokens._gathered = noted  # type: ignore[method-assign]


class RefuseIn(Callback):
    """Find bad input in a hook, of several processes in one `rank` alone."""

    def __init__(self, hook: str, rank: int) -> None:
        self.rank = rank
        setattr(self, hook, self._refuse)

    def _refuse(self, trainer: Any, *_: Any, **__: Any) -> None:
        if trainer.global_rank == self.rank:
            raise ValueError(f"process {self.rank} found bad input")


class SignalIn(Callback):
    """Send this process a signal in a hook, the first time; of several processes to one `rank`."""

    def __init__(self, hook: str, signal_name: str = "SIGTERM", rank: int = 0) -> None:
        self.rank, self.number = rank, getattr(signal, signal_name)
        setattr(self, hook, self._send)

    def _send(self, trainer: Any, *_: Any, **__: Any) -> None:
        if trainer.global_rank == self.rank:
            self.rank = -1
            os.kill(os.getpid(), self.number)


def write_config(folder: Path, data: dict[str, Any], sae: Path, steps: int) -> Path:
    """Write a configuration like configs/case3.yaml for the small model; return its path."""
    checkpoints = str(folder / "checkpoints")
    interval = {"every_n_train_steps": 2, "save_last": True, "save_top_k": -1}
    callbacks = [
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": checkpoints, "enable_version_counter": False, **interval},
        },
        {
            "class_path": "saerepgeo.callbacks.interruption.Interruption",
            "init_args": {"dirpath": checkpoints},
        },
        {
            "class_path": "saerepgeo.callbacks.sae_export.SAEExport",
            "init_args": {"dirpath": str(folder / "sae")},
        },
    ]
    trainer = {
        "accelerator": "cpu",
        "max_steps": steps,
        "max_epochs": -1,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
        "gradient_clip_val": 1.0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "default_root_dir": str(folder),
        "callbacks": callbacks,
    }
    module = {"sae": {"path": str(sae)}, "weight": 0.5, "lr": 1e-2, "warmup_steps": 3}
    config = {
        "trainer": trainer,
        "model": {
            "class_path": "saerepgeo.cases.separability.module.SeparabilityModule",
            "init_args": module,
        },
        "data": {"class_path": "saerepgeo.data.ActivationDataModule", "init_args": data},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def write_family(folder: Path, data: dict[str, Any], sae: Path, steps: int) -> Path:
    """Write a configuration like configs/pretrain_many.yaml for the small model; return its path.

    Of two hooks and three SAEs: a new one at each, and at the first the one in the folder `sae`.
    """
    path = write_config(folder, data, sae, steps)
    config = yaml.safe_load(path.read_text())
    first, second = "blocks.1.hook_resid_post", "blocks.0.hook_resid_post"
    new = {"architecture": "topk", "d_in": 32, "d_sae": 64, "lr": 1e-2, "warmup_steps": 3}
    saes = [
        {"name": "loaded", "path": str(sae), "hook_name": first, "weight": 0.5, "lr": 1e-2},
        new | {"name": "topk", "options": {"k": 4}, "hook_name": second},
        new | {"name": "batch", "architecture": "batchtopk", "options": {"k": 3}, "seed": 2},
    ]
    saes[0]["regularizer"], saes[2]["hook_name"] = "gromov_wasserstein", first
    config["model"] = {
        "class_path": "saerepgeo.cases.SAEFamilyModule",
        "init_args": {"saes": saes},
    }
    config["data"]["init_args"]["hook_name"] = [first, second]
    path.write_text(yaml.safe_dump(config))
    return path


def run_fit(
    config: Path, *arguments: str, command: str = "fit"
) -> subprocess.CompletedProcess[str]:
    """Run `python -m saerepgeo fit`, or another command, in a process of its own."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1]))),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-m", "saerepgeo", command, "--config", str(config), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=config.parent,
        check=False,
    )


def analysis(case: str, sae: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """Return model and callback of an analysis."""
    artifacts = {
        "class_path": f"saerepgeo.cases.{case}.artifacts.{case.title()}Artifacts",
        "init_args": {"dirpath": str(folder)},
    }
    init = {"sae": {"path": str(sae)}} | options
    model = {"class_path": f"saerepgeo.cases.{case}.module.{case.title()}Module", "init_args": init}
    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(folder), "default_hp_metric": False},
    }
    return {"model": model, "callbacks": [artifacts], "logger": logger}


SPLIT = (
    "--trainer.devices",
    "2",
    "--trainer.strategy",
    '{"class_path": "lightning.pytorch.strategies.ModelParallelStrategy", '
    '"init_args": {"data_parallel_size": 1, "save_distributed_checkpoint": false}}',
)
"""Command line arguments that divide the latents between two processes."""


def killing(step: int, name: str) -> str:
    """Return the command line argument that adds `KillAt`."""
    return (
        '--trainer.callbacks+={"class_path": "training_process.KillAt", '
        f'"init_args": {{"step": {step}, "signal_name": "{name}"}}}}'
    )
