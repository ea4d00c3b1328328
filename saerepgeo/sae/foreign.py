"""SAEs of other libraries, by their folder layout: dictionary_learning and sparsify."""

from pathlib import Path
from typing import Any

from saerepgeo.sae.model import SAEModel

__all__ = ["is_foreign", "load_foreign"]

DICTIONARY_LEARNING_FILE = "ae.pt"
SPARSIFY_FILE = "sae.safetensors"


def is_foreign(folder: Path) -> bool:
    """Return whether a folder holds the weights of dictionary_learning or sparsify."""
    return (folder / DICTIONARY_LEARNING_FILE).is_file() or (folder / SPARSIFY_FILE).is_file()


def load_foreign(folder: Path, device: str, training: dict[str, Any] | None) -> SAEModel:
    """Return the SAE of a dictionary_learning or sparsify folder."""
    raise ValueError(f"{folder} must be in SAELens format")
