"""Write an SAE so that SAELens, its dashboards and this package read it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saerepgeo.sae.io.load import CONFIG_FILE, SCALER_FILE, TRAINING_FOLDER, WEIGHTS_FILE
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.model import SAEModel

__all__ = ["save_sae"]


def save_sae(
    model: SAEModel,
    folder: str | Path,
    metadata: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    with_training_form: bool = True,
) -> Path:
    """Write both SAELens forms of an SAE and return the folder.

    `folder` itself holds the portable inference form (`sae_lens.SAE.load_from_disk`): decoder norms
    and constant input scale are folded into the weights, batchtopk becomes jumprelu with the
    learned threshold. `folder/training` holds the training form
    (`sae_lens.TrainingSAE.load_from_disk`), bit for bit the parameters. `metadata` goes over what
    the SAE's origin recorded (model_name, hook_name, context_size, prepend_bos,
    exclude_special_tokens, model_from_pretrained_kwargs; anything else that is JSON).
    `dtype` stores the weights as torch.float16 or torch.bfloat16; None keeps float32.
    SAEs that cannot be trained here have one form, written into `folder` bit for bit.

    The folder appears whole or not at all; other files in a folder that is replaced stay.
    Raises ValueError on an unsupported `dtype` or metadata that is not JSON.
    """
    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"`dtype` must be float32, float16 or bfloat16, got {dtype}")
    target = Path(folder)
    record = _metadata(model, metadata)
    staging = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if not model.is_trainable:
            _write_as_is(staging, model, record, dtype)
        else:
            cfg = _inference_config(model, record, _name(dtype))
            _write(staging, cfg, _inference_weights(model, dtype))
            if with_training_form:
                _write_as_is(staging / TRAINING_FOLDER, model, record, dtype)
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _metadata(model: SAEModel, extra: dict[str, Any] | None) -> dict[str, Any]:
    record = model.metadata | {"sae_lens_version": sae_lens().__version__} | (extra or {})
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`metadata` must be JSON, got: {error}; pass plain values") from error
    return record


def _weights(model: SAEModel) -> dict[str, Tensor]:
    state = model.sae.state_dict()
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def _cast(weights: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    kept = ("threshold", "topk_threshold")  # a threshold rounded is another sparsity
    return {
        name: tensor if dtype is None or name in kept else tensor.to(dtype)
        for name, tensor in weights.items()
    }


@torch.no_grad()
def _inference_weights(model: SAEModel, dtype: torch.dtype | None) -> dict[str, Tensor]:
    weights = _weights(model)
    model.sae.process_state_dict_for_saving_inference(weights)
    if model.normalization == "expected_average_only_in":
        factor = model.input_scale.cpu()
        if "W_enc" in weights:  # a tied encoder takes its latents in the unscaled units instead
            weights["W_enc"] = weights["W_enc"] * factor
            weights["W_dec"] = weights["W_dec"] / factor
        weights["b_dec"] = weights["b_dec"] / factor
    return {name: tensor.cpu().contiguous() for name, tensor in _cast(weights, dtype).items()}


def _inference_config(model: SAEModel, record: dict[str, Any], dtype: str) -> dict[str, Any]:
    cfg = model.sae.cfg.get_inference_sae_cfg_dict()
    folded = model.normalization == "expected_average_only_in"
    cfg |= {
        "dtype": dtype,
        "device": "cpu",
        "normalize_activations": "none" if folded else model.normalization,
        "metadata": cfg["metadata"] | record,
    }
    if folded and "residual_threshold" in cfg:  # a norm, in the units of the input
        cfg["residual_threshold"] /= float(model.input_scale)
    if "rescale_acts_by_decoder_norm" in cfg:
        cfg["rescale_acts_by_decoder_norm"] = False  # the norms are folded into the weights
    return dict(cfg)


def _write_as_is(
    folder: Path, model: SAEModel, record: dict[str, Any], dtype: torch.dtype | None
) -> None:
    """Write config and parameters with nothing folded, and the constant input scale beside them."""
    cfg = model.sae.cfg.to_dict()
    cfg |= {
        "dtype": _name(dtype),
        "device": "cpu",
        "normalize_activations": model.normalization,
        "metadata": cfg["metadata"] | record,
    }
    _write(folder, cfg, _cast(_weights(model), dtype))
    if model.normalization == "expected_average_only_in":
        scaler = {"scaling_factor": float(model.input_scale), "has_whitening": False}
        (folder / SCALER_FILE).write_text(json.dumps(scaler) + "\n", encoding="utf-8")


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype or torch.float32).removeprefix("torch.")


def _write(folder: Path, cfg: dict[str, Any], weights: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(weights, folder / WEIGHTS_FILE)
    text = json.dumps(cfg, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def _swap(staging: Path, target: Path) -> None:
    """Put the finished folder in place of the target, keeping files that are not ours."""
    if not target.exists():
        os.replace(staging, target)
        return
    ours = {CONFIG_FILE, WEIGHTS_FILE, SCALER_FILE, TRAINING_FOLDER}
    for entry in target.iterdir():
        if entry.name in ours:
            continue
        destination = staging / entry.name
        if entry.is_dir():
            shutil.copytree(entry, destination)
        else:
            shutil.copy2(entry, destination)
    retired = target.with_name(f".{target.name}.{os.getpid()}.old")
    os.replace(target, retired)
    os.replace(staging, target)
    shutil.rmtree(retired)
