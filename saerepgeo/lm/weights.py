"""Whether the files of a language model hold all of its weights, finite and as numbers."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

INDEX_FILE = "model.safetensors.index.json"
NUMBERS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the dtypes of weights that are no codes for others."""


def check_files(folder: Path, n_layers: int) -> None:
    """Refuse, from the headers alone, a folder without safetensors, or with quantized weights.

    Fewer tensors than layers are too few to build the model for.

    Raises ValueError, which names the file and the tensor.
    """
    files = _weight_files(folder)
    if not files:
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        found = f"only `{pickles[0]}`, a pickle, which could run code" if pickles else "none"
        raise ValueError(
            f"model `{folder}` must hold its weights as safetensors, got {found}; load it where "
            "you trust it and write it with `model.save_pretrained(folder)`"
        )
    n_tensors = 0
    for file in files:
        dtypes = _dtypes(file)
        n_tensors += len(dtypes)
        if codes := [(n, d) for n, d in dtypes if n.endswith("weight") and d not in NUMBERS]:
            name, dtype = codes[0]
            raise ValueError(
                f"`{file}` holds quantized weights ({name} and {len(codes) - 1} more, {dtype}); "
                "give the model in float32, float16 or bfloat16"
            )
    if n_tensors < n_layers:
        raise ValueError(
            f"model `{folder}` has {n_tensors} tensors and, by its config.json, {n_layers} layers; "
            "fetch both from the same place"
        )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"`{index}` must hold a `weight_map` of tensors to files; fetch it again"
        ) from error
    for file in files:
        if file.parent != folder or not file.is_file():
            raise ValueError(f"`{index}` names the file {file.name}, which is not beside it")
    return files


def _dtypes(file: Path) -> list[tuple[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as tensors:
            return [(name, tensors.get_slice(name).get_dtype()) for name in tensors.keys()]  # noqa: SIM118
    except (SafetensorError, UnicodeDecodeError) as error:
        raise ValueError(f"`{file}` must be whole, got: {error}; fetch it again") from error


def check_loaded(where: Any, model: nn.Module, info: Mapping[str, Any]) -> None:
    """Refuse a model with weights that `transformers` made up, or that are no finite numbers.

    `info` is what it says of the loading (`output_loading_info`). Raises ValueError.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if missing:
        n_all = len(list(model.parameters()))
        others = f"; it holds {_few(unexpected)} instead" if unexpected else ""
        raise ValueError(
            f"the weights of model `{where}` lack {_few(missing)} of the {n_all} tensors that its "
            f"configuration asks for{others}; fetch them again, or the config.json that belongs to "
            "them"
        )
    for name, found, expected in sorted(info["mismatched_keys"]):
        raise ValueError(
            f"the weights of model `{where}` have `{name}` of shape {tuple(found)}, its "
            f"config.json asks for {tuple(expected)}; fetch both from the same place"
        )
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"the weights of model `{where}` are damaged: `{name}` holds "
                f"{int((~torch.isfinite(tensor)).sum()):,} values that are NaN or infinite; fetch "
                "them again"
            )


def _few(names: list[str]) -> str:
    """Return up to three names and how many there are.

    >>> _few(["a", "b", "c", "d"])
    '4 (a, b, c, …)'
    """
    return f"{len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


@contextmanager
def quiet_transformers(with_bars: bool = False) -> Iterator[None]:
    """Keep what `transformers` prints off the screen: what becomes an error here, progress bars."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not with_bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
