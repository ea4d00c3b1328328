"""SAEs of other libraries, by their folder layout: dictionary_learning and sparsify."""

import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from saerepgeo.sae.io.files import Config, Stored, check_integers, read_json, read_safetensors

DICTIONARY_LEARNING_FILE = "ae.pt"
SPARSIFY_FILE = "sae.safetensors"

_ARCHITECTURES = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka_batchtopk",
    "JumpReluAutoEncoder": "jumprelu",
    "GatedAutoEncoder": "gated",
}
# these do not take the decoder bias off the input
_UNCENTERED = ("AutoEncoderNew", "JumpReluAutoEncoder")

_NAMES = {
    "encoder.weight": "W_enc",
    "encoder.bias": "b_enc",
    "decoder.weight": "W_dec",
    "bias": "b_dec",
    "decoder.bias": "b_dec",
    "decoder_bias": "b_dec",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
}
_TRANSPOSED = ("encoder.weight", "decoder.weight")  # stored as nn.Linear has them
_HOOKS = {"resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "attn_out": "hook_attn_out"}


def read_dictionary_learning(folder: Path, with_weights: bool = True) -> Stored:
    """Return config and weights (none without `with_weights`) of a dictionary_learning folder.

    batchtopk SAEs apply their threshold in evaluation and select over the batch in training, as
    their own trainer does. Weights are as stored: `AutoEncoder.from_pretrained` would rescale the
    decoder rows to unit norm.

    Raises ValueError on a class without counterpart, missing sizes, a file that holds no tensors.
    """
    file = folder / "config.json"
    config = read_json(file)
    trainer = config.get("trainer")
    kind = trainer.get("dict_class") if isinstance(trainer, dict) else trainer
    if not isinstance(trainer, dict) or kind not in _ARCHITECTURES:
        raise ValueError(
            f"{file} must name a trainer `dict_class` among {', '.join(_ARCHITECTURES)}, got "
            f"{kind!r}"
        )
    check_integers(f"{file} under trainer", trainer, "activation_dim", "dict_size")
    layer, submodule = trainer.get("layer"), trainer.get("submodule_name") or "resid_post"
    site = next((hook for name, hook in _HOOKS.items() if submodule.startswith(name)), submodule)
    hook = None if layer is None else f"blocks.{layer}.{site}"
    context_size = (config.get("buffer") or {}).get("ctx_len")
    cfg = {
        "architecture": _ARCHITECTURES[kind],
        "d_in": trainer["activation_dim"],
        "d_sae": trainer["dict_size"],
        "apply_b_dec_to_input": kind not in _UNCENTERED,
        "metadata": _metadata("dictionary_learning", trainer.get("lm_name"), hook, context_size),
    }
    weights = _add_weights(cfg, trainer, folder) if with_weights else {}
    return cfg, weights, None


def _add_weights(cfg: Config, trainer: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    """Return the weights, and put into the config what only they or the trainer tell."""
    stored, architecture = (
        _read_pickled_tensors(folder / DICTIONARY_LEARNING_FILE),
        cfg["architecture"],
    )
    if "decoder.bias" in stored:  # an AutoEncoderNew, though its trainer's config says AutoEncoder
        cfg["apply_b_dec_to_input"] = False
    k, threshold, groups = (stored.pop(n, None) for n in ("k", "threshold", "group_sizes"))
    if "topk" in architecture:
        cfg["k"] = int(k) if k is not None else trainer["k"]
    if "batchtopk" in architecture and threshold is not None:
        # −1 is the origin's mark for a threshold never set; SAELens' is 0
        stored["topk_threshold"] = threshold.double().clamp(min=0.0)
    if architecture == "matryoshka_batchtopk":
        sizes = trainer.get("group_sizes") if groups is None else groups.tolist()
        cfg["matryoshka_widths"] = torch.tensor(sizes).cumsum(0).tolist()
    if architecture == "jumprelu" and threshold is not None:
        stored["threshold"] = threshold.expand(trainer["dict_size"]).clone()
    return _renamed(stored)


def _metadata(origin: str, model: Any, hook: str | None, context_size: Any) -> dict[str, Any]:
    name = str(model or "").split("/")[-1] or None
    return {"model_name": name, "hook_name": hook, "context_size": context_size, "origin": origin}


def _renamed(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        _NAMES.get(name, name): tensor.t().contiguous() if name in _TRANSPOSED else tensor
        for name, tensor in stored.items()
    }


def _read_pickled_tensors(file: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():  # of pickles that torch did not write: refused in the end
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            stored = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} must hold plain tensors, got: {str(error).splitlines()[0]}; "
            "other content is not loaded, for it could run code"
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(t, Tensor) for t in stored.values()):
        raise ValueError(f"{file} must hold a dict of tensors; save the SAE's state_dict()")
    return dict(stored)


def read_sparsify(folder: Path, with_weights: bool = True) -> Stored:
    """Return config and weights (as stored; none without `with_weights`) of a sparsify folder.

    Raises ValueError on a setting without counterpart (signed or grouped selection, transcoders,
    skip connections) and on missing sizes.
    """
    config = read_json(folder / "cfg.json")
    refused = [name for name in ("transcode", "skip_connection", "signed") if config.get(name)]
    if config.get("activation", "topk") != "topk":
        refused.append(f"activation={config['activation']}")
    missing = [name for name in ("d_in", "k") if not isinstance(config.get(name), int)]
    if refused or missing:
        raise ValueError(
            f"{folder / 'cfg.json'} must describe a plain TopK SAE of sparsify, got "
            f"unsupported: {', '.join(refused) or 'none'}, missing: {', '.join(missing) or 'none'}"
        )
    # model and hook show in a run's layout: <run>/config.json, <run>/layers.<n>/cfg.json
    run_file = folder.parent / "config.json"
    run = read_json(run_file) if run_file.is_file() else {}
    layer = folder.name.removeprefix("layers.").removeprefix("layers_")
    hook = f"blocks.{layer}.hook_resid_post" if layer.isdigit() else None
    cfg = {
        "architecture": "topk",
        "d_in": config["d_in"],
        "d_sae": config.get("num_latents") or config["d_in"] * config["expansion_factor"],
        "k": config["k"],
        "metadata": _metadata("sparsify", run.get("model"), hook, run.get("ctx_len")),
    }
    weights = _renamed(read_safetensors(folder / SPARSIFY_FILE)) if with_weights else {}
    return cfg, weights, None


READERS = {DICTIONARY_LEARNING_FILE: read_dictionary_learning, SPARSIFY_FILE: read_sparsify}
"""How to read the folder in which such a file lies."""
