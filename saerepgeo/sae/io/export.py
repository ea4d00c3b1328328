"""Write an SAE so that SAELens, its dashboards and this package read it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from saerepgeo.files import replacing_folder
from saerepgeo.sae.io.files import Stored
from saerepgeo.sae.io.load import CONFIG_FILE, SCALER_FILE, TRAINING_FOLDER, WEIGHTS_FILE
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.model import SAEModel

FIGURES_FILE = "figures.json"
OURS = frozenset({CONFIG_FILE, WEIGHTS_FILE, SCALER_FILE, TRAINING_FOLDER})


def save_sae(
    model: SAEModel,
    folder: str | Path,
    metadata: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    with_training_form: bool = True,
    figures: Mapping[str, float] | None = None,
) -> Path:
    """Write both SAELens forms of an SAE and return the folder.

    `folder` holds the portable inference form (`sae_lens.SAE.load_from_disk`): decoder norms and
    constant input scale are folded into the weights, batchtopk becomes jumprelu with the learned
    threshold. `folder/training` holds the training form (`sae_lens.TrainingSAE.load_from_disk`),
    bit for bit the parameters. SAEs that cannot be trained here have one form, bit for bit.
    `metadata` goes over what the SAE's origin recorded (model_name, hook_name, context_size,
    prepend_bos, exclude_special_tokens, model_from_pretrained_kwargs; anything else that is JSON).
    `dtype` stores the weights as torch.float16 or torch.bfloat16; None keeps float32. `figures` are
    written beside them, as `figures.json`.

    The folder appears whole or not at all; other files in a folder that is replaced stay.
    Raises ValueError on an unsupported `dtype` or metadata that is not JSON; DiskError where the
    folder cannot be written.
    """
    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"`dtype` must be float32, float16 or bfloat16, got {dtype}")
    record = model.metadata | {"sae_lens_version": sae_lens().__version__} | (metadata or {})
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`metadata` must be JSON, got: {error}; pass plain values") from error
    forms = {"": _inference_form if model.is_trainable else _own_form}
    if model.is_trainable and with_training_form:
        forms[TRAINING_FOLDER] = _own_form
    n_numbers = len(forms) * sum(tensor.numel() for tensor in model.sae.state_dict().values())
    n_bytes = n_numbers * (dtype or torch.float32).itemsize
    with replacing_folder(folder, n_bytes, OURS) as staging:
        for name, form in forms.items():
            _write(staging / name, form(model), record, dtype)
        if figures is not None:
            _write_json(staging / FIGURES_FILE, dict(figures))
    return Path(folder)


@torch.no_grad()
def _inference_form(model: SAEModel) -> Stored:
    """Return config and weights with decoder norms and the constant input scale folded in."""
    cfg = dict(model.sae.cfg.get_inference_sae_cfg_dict())
    weights = {name: tensor.clone() for name, tensor in model.sae.state_dict().items()}
    model.sae.process_state_dict_for_saving_inference(weights)
    if model.rescales_by_norm:  # a row of zeros was divided by its norm
        is_zero = model.sae.W_dec.norm(dim=-1) == 0
        weights["W_dec"] = weights["W_dec"].masked_fill(is_zero[:, None], 0.0)
    if "rescale_acts_by_decoder_norm" in cfg:
        cfg["rescale_acts_by_decoder_norm"] = False
    if model.normalization == "expected_average_only_in":
        cfg["normalize_activations"] = "none"
        if "residual_threshold" in cfg:  # a norm, in the units of the input
            cfg["residual_threshold"] /= float(model.input_scale)
        if "W_enc" in weights:  # a tied encoder takes its latents in the unscaled units instead
            weights["W_enc"] = weights["W_enc"] * model.input_scale
            weights["W_dec"] = weights["W_dec"] / model.input_scale
        weights["b_dec"] = weights["b_dec"] / model.input_scale
    return cfg, weights, None


def _own_form(model: SAEModel) -> Stored:
    """Return config and parameters with nothing folded, and the constant input scale."""
    cfg = model.sae.cfg.to_dict() | {"normalize_activations": model.normalization}
    is_scaled = model.normalization == "expected_average_only_in"
    return cfg, model.sae.state_dict(), float(model.input_scale) if is_scaled else None


def _write(folder: Path, form: Stored, record: dict[str, Any], dtype: torch.dtype | None) -> None:
    from safetensors.torch import save_file

    cfg, weights, scale = form
    kept = ("threshold", "topk_threshold")  # a threshold rounded is another sparsity
    stored = {
        name: tensor.detach().to("cpu", None if name in kept else dtype).clone().contiguous()
        for name, tensor in weights.items()
    }
    name = str(dtype or torch.float32).removeprefix("torch.")
    cfg = cfg | {"dtype": name, "device": "cpu", "metadata": cfg["metadata"] | record}
    folder.mkdir(exist_ok=True)
    save_file(stored, folder / WEIGHTS_FILE)
    _write_json(folder / CONFIG_FILE, cfg)
    mode = (folder / CONFIG_FILE).stat().st_mode  # safetensors' is the owner's alone
    (folder / WEIGHTS_FILE).chmod(mode)
    if scale is not None:
        _write_json(folder / SCALER_FILE, {"scaling_factor": scale, "has_whitening": False})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
