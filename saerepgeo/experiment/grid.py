"""The cells of an experiment: every fine-tuning run it is made of, as an ordinary `fit` command."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from saerepgeo.experiment.cells import Cell

CONTROL = "none"
"""Regularizer of the cells with dose 0."""
REGULARIZERS = ("aedp", "fisher", "gromov_wasserstein")
SAE_FILES = (".safetensors", ".json", ".pt")
"""What an SAE is made of, in the formats that can be read."""


@dataclass
class Experiment:
    """A grid over regularizer, dose and seed with matched controls.

    Every seed has its control (dose 0) and, for every regularizer, every dose with true labels and
    every one of `shuffled_doses` with shuffled ones. Cells of one seed see the same batches.

    Attributes:
        base: configuration that every cell starts from, as for `fit`.
        output: folder of the cells and the results.
        regularizers: aedp, fisher, gromov_wasserstein.
        doses: signed λ, not 0; two of each sign identify the slope at the control.
        shuffled_doses: doses that are run with shuffled labels as well.
        seeds: of data order, held-out items and module; six or more can reach p < 0.05.
        settings: further options of `fit` for all cells, by full name, e.g. trainer.max_steps.
        checkpoint_every: steps between the checkpoints that an interrupted cell resumes from.
        n_contexts: held-out contexts on which the language model's losses are measured; 0: none.
        separability: column that measures separability in the verdict, on held-out items.
        error: column that measures the error in the verdict.
        n_processes: worker processes to start; others, elsewhere, may share the folder.
        n_threads: threads of each worker; by default its share of the cores.
        stale_after: seconds without a sign of life after which a cell is taken over.
        max_attempts: times a cell is tried that ends in an error.
    """

    base: str
    output: str
    regularizers: list[str]
    doses: list[float]
    seeds: list[int]
    shuffled_doses: list[float] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: int = 20
    n_contexts: int = 16
    separability: str = "relative_aedp"
    error: str = "mse"
    n_processes: int = 2
    n_threads: int | None = None
    stale_after: float = 300.0
    max_attempts: int = 2

    def __post_init__(self) -> None:
        if not Path(self.base).is_file():
            raise ValueError(f"`base` must be a configuration file of `fit`, got {self.base}")
        self.settings = _flat(self.settings)
        for name in ("doses", "shuffled_doses"):
            doses = getattr(self, name)
            if not all(math.isfinite(dose) and dose != 0 for dose in doses):
                raise ValueError(
                    f"`{name}` must be finite and not 0 (the control is run anyway), got {doses}"
                )
        for name in ("regularizers", "doses", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"`{name}` must be a list without repeats, got {values}")
        if unknown := ", ".join(sorted(set(self.regularizers) - {*REGULARIZERS})):
            raise ValueError(f"`regularizers` must be of {', '.join(REGULARIZERS)}, got {unknown}")

    @property
    def cells(self) -> list[Cell]:
        """Every cell, seed by seed, the control first."""
        arms = [(float(dose), "given") for dose in self.doses]
        arms += [(float(dose), "shuffled") for dose in self.shuffled_doses]
        found = []
        for seed in self.seeds:
            found.append(Cell(CONTROL, 0.0, seed))
            for regularizer, (dose, labels) in product(self.regularizers, arms):
                found.append(Cell(regularizer, dose, seed, labels))
        return found

    def folder(self, cell: Cell) -> Path:
        """Return the folder of `cell`, named by what it is and a hash of its settings and SAE."""
        fixed = [*self._base_texts, self.n_contexts, self._arguments(cell)]
        digest = hashlib.sha256(json.dumps(fixed).encode()).hexdigest()[:8]
        name = f"{cell.regularizer}_{cell.dose:+g}_{cell.labels}_seed{cell.seed}_{digest}"
        return Path(self.output) / "cells" / name

    def result_path(self, cell: Cell) -> Path:
        """Return the file that is there when `cell` is finished."""
        return self.folder(cell) / "result.json"

    @property
    def finished(self) -> list[Cell]:
        """Cells that have a result."""
        return [cell for cell in self.cells if self.result_path(cell).is_file()]

    def command(self, cell: Cell) -> list[str]:
        """Return the arguments of `python -m saerepgeo` that run `cell`, resuming if it began."""
        folder = self.folder(cell)
        arguments = [
            "fit",
            f"--config={self.base}",
            f"--trainer.default_root_dir={folder}",
            f"--trainer.callbacks={json.dumps(self._callbacks(cell))}",
            *self._arguments(cell),
        ]
        last = folder / "checkpoints" / "last.ckpt"
        return [*arguments, f"--ckpt_path={last}"] if last.is_file() else arguments

    @cached_property
    def _base_texts(self) -> list[str]:
        """The base, and a hash of its SAE: another under the same name is another experiment."""
        text = Path(self.base).read_text(encoding="utf-8")
        sae = read_config(self.base).get("model", {}).get("init_args", {}).get("sae") or {}
        path = self.settings.get("model.init_args.sae.path", sae.get("path"))
        if path is None or not Path(path).is_dir():
            return [text, ""]  # a release, whose name says what it is, or what `fit` will refuse
        digest = hashlib.sha256()
        for file in sorted(p for p in Path(path).iterdir() if p.suffix in SAE_FILES):
            digest.update(file.name.encode() + file.read_bytes())
        return [text, digest.hexdigest()]

    def _arguments(self, cell: Cell) -> list[str]:
        is_control = cell.regularizer == CONTROL
        options = {
            "trainer.logger": False,
            "trainer.enable_progress_bar": False,
            "trainer.enable_model_summary": False,
            "trainer.num_sanity_val_steps": 0,
            "trainer.limit_val_batches": 0,  # the figures are taken once, at the end
            "data.init_args.cache_stream": True,  # the cells of a seed share the LM's work
            **self.settings,
            "seed_everything": cell.seed,
            "data.init_args.seed": cell.seed,
            "model.init_args.seed": cell.seed,
            "model.init_args.regularizer": self.regularizers[0] if is_control else cell.regularizer,
            "model.init_args.weight": abs(cell.dose),
            "model.init_args.direction": "decrease" if cell.dose < 0 else "increase",
            "model.init_args.shuffle_labels": cell.labels == "shuffled",
        }
        texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in options.items()}
        return [f"--{name}={text}" for name, text in texts.items()]

    def _callbacks(self, cell: Cell) -> list[dict[str, Any]]:
        checkpoints = str(self.folder(cell) / "checkpoints")
        result = {"path": str(self.result_path(cell)), "about": cell._asdict()}
        named: dict[str, dict[str, Any]] = {
            "saerepgeo.callbacks.interruption.Interruption": {"dirpath": checkpoints},
            "saerepgeo.experiment.cell_result.CellResult": result | {"n_contexts": self.n_contexts},
            "lightning.pytorch.callbacks.ModelCheckpoint": {
                "dirpath": checkpoints,
                "every_n_train_steps": self.checkpoint_every,
                "save_last": True,
                "enable_version_counter": False,
            },
        }
        return [{"class_path": name, "init_args": options} for name, options in named.items()]


def read_config(path: str | Path) -> dict[str, Any]:
    """Return what a YAML configuration holds; ValueError unless it is a mapping."""
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(content).__name__}")
    return content


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by full name; the command line nests `--settings.trainer.max_steps 5`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        own = {f"{prefix}{name}": value}
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else own
    return flat
