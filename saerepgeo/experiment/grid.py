"""The cells of an experiment: every fine-tuning run it is made of, as an ordinary `fit` command."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from saerepgeo.bounds import Bound, Count, PositiveInt, Text, check_settings
from saerepgeo.experiment.cells import RECONSTRUCTION, SEPARABILITY, Cell, read_result
from saerepgeo.experiment.engine import Engine
from saerepgeo.files import is_url
from saerepgeo.lm.sums import cache_root, file_sum
from saerepgeo.yaml_files import read_yaml

CONTROL = "none"
"""Regularizer of the cells with dose 0."""
DEVICES = "trainer.devices"
MODEL_FILES = (".safetensors", ".json", ".pt")
"""What an SAE or a language model is made of, in the formats that can be read."""
OURS = (
    *("ckpt_path", "config", "seed_everything", "data.init_args.seed", "model.init_args.seed"),
    *(f"model.init_args.{name}" for name in ("regularizer", "weight", "direction")),
    *("model.init_args.shuffle_labels", "trainer.callbacks", "trainer.default_root_dir"),
)
"""Options of `fit` that the grid sets itself, cell by cell."""
CONTENTS = (
    "model.init_args.sae.path",
    *(f"data.init_args.{name}" for name in ("lm", "prompts", "text", "heldout_text")),
)
"""Settings that name files: other content is another experiment."""

Dose = Annotated[
    float,
    Bound(
        "finite and not 0 (the control is run anyway)", lambda x: math.isfinite(x) and bool(x != 0)
    ),
]
Seed = Annotated[int, Bound("an integer from 0 to 2**32 - 1", lambda x: 0 <= x < 2**32)]
Regularizer = Literal["aedp", "fisher", "debiased_aedp", "debiased_fisher", "gromov_wasserstein"]


@dataclass(kw_only=True)
class Experiment(Engine):
    """A grid over regularizer, dose and seed with matched controls.

    Every seed has its control (dose 0) and, for every regularizer, every dose with true labels and
    every one of `shuffled_doses` with shuffled ones. Cells of one seed see the same batches.

    Attributes:
        base: configuration that every cell starts from, as for `fit`.
        output: folder of the cells and the results; or a URL that fsspec opens, for results alone:
            checkpoints are then in a folder of `SAEREPGEO_CACHE`.
        regularizers: aedp, fisher, debiased_aedp, debiased_fisher, gromov_wasserstein.
        doses: signed λ, not 0; two of each sign identify the slope at the control.
        shuffled_doses: doses that are run with shuffled labels as well.
        seeds: of data order, held-out items and module; six or more can reach p < 0.05.
        settings: further options of `fit` for all cells, by full name, e.g. trainer.max_steps.
        checkpoint_every: steps between the checkpoints that an interrupted cell resumes from.
        n_contexts: held-out contexts on which the language model's losses are measured; 0: none.
        separability: column that measures separability in the verdict, on held-out items.
        error: column that measures the error in the verdict.
    """

    base: Text
    output: Text
    regularizers: list[Regularizer]
    doses: list[Dose]
    seeds: list[Seed]
    shuffled_doses: list[Dose] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: PositiveInt = 20
    n_contexts: Count = 16
    separability: Literal[SEPARABILITY] = "relative_aedp"
    error: Literal[RECONSTRUCTION] = "mse"

    def __post_init__(self) -> None:
        check_settings(Experiment, vars(self))
        self.settings = _flat(self.settings)
        for name in ("regularizers", "doses", "seeds", "shuffled_doses"):
            values = getattr(self, name)
            if len(set(values)) != len(values) or not (values or name == "shuffled_doses"):
                raise ValueError(f"`{name}` must be a list without repeats, got {values}")
        if taken := [name for name in OURS if name in self.settings]:
            raise ValueError(
                f"`settings` must leave `{taken[0]}` to the experiment, which sets it for each cell"
            )
        if not Path(self.base).is_file():
            raise ValueError(f"`base` must be a configuration file of `fit`, got {self.base}")
        read_yaml(self.base)
        output = self.work
        there = next(path for path in (output, *output.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ValueError(
                f"`output` must be a folder that can be written to, got {output}: check {there}"
            )
        given = self.settings.get(DEVICES, _entry(read_yaml(self.base), DEVICES))
        if self.gpus_per_cell is None and str(given) not in ("None", "auto", "1"):
            self.gpus_per_cell = 0.0  # the settings say which GPU

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

    @property
    def work(self) -> Path:
        """Folder of checkpoints and failures: `output`, unless that is a URL."""
        if not is_url(self.output):
            return Path(self.output)
        digest = hashlib.sha256(self.output.encode()).hexdigest()[:8]
        return cache_root() / "experiments" / digest

    def folder(self, cell: Cell) -> Path:
        """Return the folder of `cell`, named by what it is and a hash of its settings and SAE."""
        fixed = [*self._base_texts, self.n_contexts, self._arguments(cell)]
        digest = hashlib.sha256(json.dumps(fixed).encode()).hexdigest()[:8]
        name = f"{cell.regularizer}_{cell.dose:+g}_{cell.labels}_seed{cell.seed}_{digest}"
        return self.work / "cells" / name

    def result_path(self, cell: Cell) -> str | Path:
        """Return the file, or its URL, that is there when `cell` is finished."""
        path = f"{self.output.rstrip('/')}/cells/{self.folder(cell).name}/result.json"
        return path if is_url(path) else Path(path)

    def is_finished(self, cell: Cell) -> bool:
        """Return whether `cell` has a result that is whole."""
        try:
            return bool(self.rows(cell))
        except (FileNotFoundError, ValueError):
            return False

    def rows(self, cell: Cell) -> list[dict[str, Any]]:
        """Return the rows of the result of `cell`; ValueError where it is damaged."""
        return read_result(self.result_path(cell), cell)

    @property
    def finished(self) -> list[Cell]:
        """Cells that have a result."""
        return [cell for cell in self.cells if self.is_finished(cell)]

    def command(self, cell: Cell, resumes: bool = True) -> list[str]:
        """Return the arguments of `python -m saerepgeo` that run `cell`, resuming if it began."""
        folder = self.folder(cell)
        arguments = [
            "fit",
            f"--config={self.base}",
            f"--trainer.default_root_dir={folder}",
            f"--trainer.callbacks={json.dumps(self._callbacks(cell))}",
            *self._arguments(cell),
        ]
        has_begun = resumes and any((folder / "checkpoints").glob("*.ckpt"))
        return [*arguments, "--ckpt_path=last"] if has_begun else arguments

    @cached_property
    def _base_texts(self) -> list[str]:
        """The base, and hashes of the files it names: others under the same names are not it."""
        config = read_yaml(self.base)
        found = [_digest(self.settings.get(n, _entry(config, n))) for n in CONTENTS]
        # no entries for what has no files: its name says what it is
        return [Path(self.base).read_text(encoding="utf-8"), found[0], *filter(None, found[1:])]

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


def _entry(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _digest(named: Any) -> str:
    """Return a hash of the files that a setting names, or nothing where it names none."""
    sums = [[path.name, file_sum(path)] for path in _files(named)]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest() if sums else ""


def _files(named: Any) -> Iterator[Path]:
    for name in named if isinstance(named, list) else [named]:
        path = Path(name) if isinstance(name, str) else Path()
        if path.is_file():
            yield path
        elif isinstance(name, str) and path.is_dir():
            yield from sorted(p for p in path.iterdir() if p.suffix in MODEL_FILES and p.is_file())


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by full name; the command line nests `--settings.trainer.max_steps 5`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        own = {f"{prefix}{name}": value}
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else own
    return flat
