"""GGUF files, converted once into a folder of safetensors that `transformers` loads fast."""

import atexit
import importlib.util
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from saerepgeo.files import DiskError, replacing_folder, written_to
from saerepgeo.lm.sums import cache_root, file_sum
from saerepgeo.lm.weights import check_loaded, quiet_transformers

MAGIC = b"GGUF"
_OWN: dict[Path, Path] = {}
"""Where this process keeps what the cache had no room for, until it ends."""


def converted(gguf: Path, name: str) -> Path:
    """Return the folder of the de-quantized model, converting `gguf` on first use.

    It is named by the file's content: another file of the same name and size is another model.
    Where the cache is full or read-only the folder is this process's own. Raises ValueError where
    the file is cut, or holds no model.
    """
    folder = cache_root() / "models" / f"{name}-{file_sum(gguf)[:16]}"
    if (folder / "config.json").is_file():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("reading a GGUF file needs the package `gguf`; run `pip install gguf`")
    _check_whole(gguf)
    if (own := _OWN.get(folder)) is not None:
        return own
    try:
        with replacing_folder(folder, first_stays=True) as scratch:
            _convert(gguf, scratch)
    except DiskError as error:
        own = Path(tempfile.mkdtemp(prefix="saerepgeo-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        warnings.warn(f"{error}; `{gguf}` is converted for this run alone", stacklevel=2)
        with written_to(own):
            _convert(gguf, own)
        _OWN[folder] = own
        return own
    return folder


def _check_whole(gguf: Path) -> None:
    """Refuse a file that ends before its tensors do, or whose beginning tells of none."""
    from gguf import GGUFReader

    with gguf.open("rb") as file:
        found = file.read(4)
    if found != MAGIC:
        raise ValueError(f"`{gguf}` is no GGUF file: expected it to begin with GGUF, got {found!r}")
    try:
        n_tensors = len(GGUFReader(gguf).tensors)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"`{gguf}` is cut or damaged: its {gguf.stat().st_size:,} bytes do not hold the "
            f"tensors that its header announces ({reason}); fetch it again"
        ) from error
    if not n_tensors:
        raise ValueError(f"`{gguf}` holds no tensor; expected a language model's")


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    origin: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    with quiet_transformers():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, output_loading_info=True, **origin
        )
        quantized, info = loaded
        check_loaded(gguf, quantized, info)
        # A model that came from GGUF refuses to be saved: move its weights into a plain one.
        with torch.device("meta"):
            plain = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(gguf.parent, **origin)
            )
        plain.load_state_dict(quantized.state_dict(), assign=True)
        plain.tie_weights()
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, **origin).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
