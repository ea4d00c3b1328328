"""Load an SAE for analysis or further training: SAELens release, SAELens folder, foreign folder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saerepgeo.sae.io.build import assemble, check_architecture, new_sae
from saerepgeo.sae.io.files import read_json, read_safetensors
from saerepgeo.sae.io.foreign import is_foreign, load_foreign, read_foreign_config
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.model import SAEModel

__all__ = ["load_sae", "new_sae", "read_config", "read_source_config"]

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
SCALER_FILE = "activation_scaler.json"
TRAINING_FOLDER = "training"


def load_sae(
    release: str | None = None,
    sae_id: str | None = None,
    path: str | Path | None = None,
    device: str = "cpu",
    training: dict[str, Any] | None = None,
    input_scale: float | None = None,
) -> SAEModel:
    """Return a trainable SAE from SAELens' registry (`release`, `sae_id`) or a folder (`path`).

    A folder is SAELens' training or inference form (cfg.json + sae_weights.safetensors),
    dictionary_learning's (config.json + ae.pt) or sparsify's (cfg.json + sae.safetensors). Where a
    folder written by `save_sae` holds both SAELens forms the training form is taken. Weights come
    back as float32 whatever they are stored in. `training` overrides settings that an inference
    form does not hold (see `saerepgeo.sae.io.build.training_config`). `input_scale` is the constant
    input factor of SAEs trained with expected_average_only_in whose files do not hold it.

    Raises ValueError, before any weights are read, on a missing folder or file, a config that is
    not one, an architecture that cannot be trained, tensors of the wrong names or shapes.
    """
    if (path is None) == (release is None):
        raise ValueError(
            f"either `path` or `release` with `sae_id` must be given, got `path`={path!r}, "
            f"`release`={release!r}"
        )
    if path is None:
        from saerepgeo.sae.io.registry import load_release

        return load_release(str(release), sae_id, device, training, input_scale)
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"`path` must be a folder that holds an SAE, got {folder}: no such folder")
    if is_foreign(folder):
        return load_foreign(folder, device, training)
    if (folder / TRAINING_FOLDER / CONFIG_FILE).is_file():
        folder = folder / TRAINING_FOLDER
    return _load_sae_lens(folder, device, training, input_scale)


def read_source_config(
    release: str | None = None, sae_id: str | None = None, path: str | Path | None = None
) -> dict[str, Any]:
    """Return the config of what `load_sae` would load, without reading any weights.

    It holds at least d_in, d_sae and metadata, under SAELens' names.

    Raises ValueError and the hub's errors as `load_sae`.
    """
    if path is None:
        from saerepgeo.sae.io.registry import read_release_config

        return read_release_config(str(release), sae_id)
    folder = Path(path)
    if is_foreign(folder):
        return read_foreign_config(folder)
    has_training_form = (folder / TRAINING_FOLDER / CONFIG_FILE).is_file()
    return read_config(folder / TRAINING_FOLDER if has_training_form else folder)


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the config of a SAELens folder in the 6.x layout, without touching the weights.

    Raises ValueError where the file is missing, not JSON or without sizes.
    """
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    cfg = read_json(Path(path) / CONFIG_FILE)
    for name in ("d_in", "d_sae"):
        if not isinstance(cfg.get(name), int):
            raise ValueError(
                f"{Path(path) / CONFIG_FILE} must hold an integer `{name}`, got {cfg.get(name)!r}; "
                "is it a SAELens config?"
            )
    config: dict[str, Any] = handle_config_defaulting(cfg)
    return config


def _load_sae_lens(
    folder: Path, device: str, training: dict[str, Any] | None, input_scale: float | None
) -> SAEModel:
    cfg = read_config(folder)
    check_architecture(cfg, training)  # refuse before the weights are read
    is_scaled = cfg.get("normalize_activations") == "expected_average_only_in"
    if is_scaled and input_scale is None and (folder / SCALER_FILE).is_file():
        input_scale = read_json(folder / SCALER_FILE).get("scaling_factor")
    weights = _without_finetuning_scale(read_safetensors(folder / WEIGHTS_FILE))
    return assemble(cfg, weights, training, input_scale, device)


def _without_finetuning_scale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the `scaling_factor` of SAELens before version 6; a factor of 1 has no effect."""
    factor = weights.pop("scaling_factor", None)
    if factor is not None and not torch.allclose(factor, torch.ones_like(factor)):
        # latents were multiplied by it on the way into the decoder alone
        weights["W_dec"] = weights["W_dec"].float() * factor.float()[:, None]
    return weights
