"""Read the files of an SAE folder, and say in one line what is wrong with one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Config = dict[str, Any]
Stored = tuple[Config, dict[str, Tensor], float | None]
"""Config under SAELens' names, weights, constant input scale where the files hold one."""


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; ValueError where there is none."""
    _check_file(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
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
    except (SafetensorError, AttributeError) as error:  # the latter of a dtype unknown to torch
        raise ValueError(f"{file} must be whole, got: {error}; fetch it again") from error


def check_integers(where: str, content: Mapping[str, Any], *names: str) -> None:
    """Raise ValueError unless the content of a config holds these sizes, all positive."""
    for name in names:
        if type(content.get(name)) is not int or content[name] < 1:
            raise ValueError(
                f"{where} must hold an integer `{name}`, got {content.get(name)!r}; expected one "
                "above 0: is it the config of an SAE?"
            )


def check_metadata(where: str, metadata: Any) -> None:
    """Raise ValueError where what an SAE tells of its origin is not of the kind that is read."""
    kinds = {"model_name": str, "hook_name": str, "hook_name_out": str, "context_size": int}
    kinds |= {"sae_lens_version": str}
    kinds |= dict.fromkeys(("model_from_pretrained_kwargs", "training_architecture_details"), dict)
    if not isinstance(metadata, dict):
        raise ValueError(f"{where} must hold `metadata` by name, got {metadata!r:.60}")
    for name, kind in kinds.items():
        if not isinstance(found := metadata.get(name), kind | None):
            expected = "an object" if kind is dict else f"of type {kind.__name__}"
            raise ValueError(f"{where} must hold metadata.{name} {expected}, got {found!r:.60}")


def check_numbers(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where weights are codes for others (integers), or are not finite."""
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(
                f"`{name}` of the SAE {where} must be float32, float16 or bfloat16, got "
                f"{str(tensor.dtype).removeprefix('torch.')}"
            )
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"`{name}` of the SAE {where} holds {int((~tensor.isfinite()).sum()):,} values "
                "that are NaN or infinite; fetch it again"
            )


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise ValueError(f"{file} must exist beside its config or weights; an SAE has both")
