"""Read the files of an SAE folder, and say in one line what is wrong with one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

Config = dict[str, Any]
Stored = tuple[Config, dict[str, Tensor], float | None]
"""Config under SAELens' names, weights, constant input scale where the files hold one."""


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; ValueError where there is none."""
    _check_file(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, got: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold an object, got {type(content).__name__}")
    return content


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file as stored; ValueError where it is cut or missing."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_file(file)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} must be whole, got: {error}; fetch it again") from error


def check_integers(where: str, content: Mapping[str, Any], *names: str) -> None:
    """Raise ValueError unless the content of a config holds these sizes."""
    for name in names:
        if not isinstance(content.get(name), int):
            raise ValueError(
                f"{where} must hold an integer `{name}`, got {content.get(name)!r}; is it the "
                "config of an SAE?"
            )


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise ValueError(f"{file} must exist beside its config or weights; an SAE has both")
