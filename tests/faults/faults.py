"""A bad input: how it is made, which command meets it, and the one line that answers it."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Tree = dict[str, Any]


@dataclass
class Place:
    """A folder with a configuration that works, for a fault to spoil.

    Attributes:
        folder: empty but for what faults write.
        lm, sae, text: the small model, a TopK SAE of it, and background text; never to be changed:
            `copy_of` gives one's own.
        config: the configuration, as `configs/case3.yaml` but small.
    """

    folder: Path
    lm: Path
    sae: Path
    text: Path
    config: Tree = field(default_factory=dict)

    def copy_of(self, source: Path) -> Path:
        """Return an own copy of a file or folder."""
        target = self.folder / f"own-{source.name}"
        if source.is_dir():
            return Path(shutil.copytree(source, target))
        return Path(shutil.copy(source, target))

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file into the folder; return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def data(self, **settings: Any) -> "Place":
        """Change settings of the data module."""
        self.config["data"]["init_args"].update(settings)
        return self

    def model(self, **settings: Any) -> "Place":
        """Change settings of the module."""
        self.config["model"]["init_args"].update(settings)
        return self

    def trainer(self, **settings: Any) -> "Place":
        """Change settings of the trainer."""
        self.config["trainer"].update(settings)
        return self

    def command(self, name: str = "fit", *options: str) -> list[str]:
        """Return the arguments of `python -m saerepgeo` that run the configuration as it is."""
        path = self.write("run.yaml", yaml.safe_dump(self.config))
        return [name, "--config", str(path), *options]


@dataclass(frozen=True)
class Fault:
    """A row of the corpus.

    Attributes:
        name: what is wrong, in a few words.
        given: spoils the place; returns the arguments of the command that meets it.
        says: regular expression that the one line on the screen fits.
        status: of the command's end.
        environment: variables of the command.
    """

    name: str
    given: Callable[[Place], Sequence[str]]
    says: str
    status: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)


def with_data(name: str, says: str, command: str = "fit", **settings: Any) -> Fault:
    """Return the fault of settings of the data module."""
    return Fault(name, lambda place: place.data(**settings).command(command), says)


def with_model(name: str, says: str, command: str = "fit", **settings: Any) -> Fault:
    """Return the fault of settings of the module."""
    return Fault(name, lambda place: place.model(**settings).command(command), says)


def with_trainer(name: str, says: str, command: str = "fit", **settings: Any) -> Fault:
    """Return the fault of settings of the trainer."""
    return Fault(name, lambda place: place.trainer(**settings).command(command), says)


def with_options(name: str, says: str, *options: str, command: str = "fit") -> Fault:
    """Return the fault of options on the command line."""
    return Fault(name, lambda place: place.command(command, *options), says)


def with_prompts(name: str, says: str, content: Any) -> Fault:
    """Return the fault of a prompts file: bytes or text as they are, anything else as JSON."""

    def given(place: Place) -> list[str]:
        written = content if isinstance(content, str | bytes) else json.dumps(content)
        return place.data(
            prompts=str(place.write("prompts.json", written)), concepts=None
        ).command()

    return Fault(name, given, says)
