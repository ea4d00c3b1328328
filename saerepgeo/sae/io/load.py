"""Load an SAE for analysis or further training: SAELens release, SAELens folder, foreign folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saerepgeo.sae.io import foreign
from saerepgeo.sae.io.build import assemble, check_architecture
from saerepgeo.sae.io.files import check_integers, read_json, read_safetensors
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.model import SAEModel

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
SCALER_FILE = "activation_scaler.json"
TRAINING_FOLDER = "training"

Config = dict[str, Any]
Stored = tuple[Config, dict[str, Tensor], float | None]
"""Config with what only the weights tell, weights, constant input scale where the files hold one"""


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
    where, config_of, content_of = _locate(release, sae_id, path)
    if path is not None:
        check_architecture(config_of(*where), training)  # refuse before the weights are read
    cfg, weights, recorded = content_of(*where)
    scale = recorded if input_scale is None else input_scale
    return assemble(cfg, weights, training, scale, device)


def read_config(
    release: str | None = None, sae_id: str | None = None, path: str | Path | None = None
) -> dict[str, Any]:
    """Return the config of what `load_sae` would load, without reading any weights.

    It holds at least d_in, d_sae and metadata, under SAELens' names.

    Raises ValueError and the hub's errors as `load_sae`.
    """
    where, config_of, _ = _locate(release, sae_id, path)
    return config_of(*where)


def _locate(
    release: str | None, sae_id: str | None, path: str | Path | None
) -> tuple[tuple[Any, ...], Callable[..., Config], Callable[..., Stored]]:
    """Return where an SAE is, and what reads its config and all of it from there."""
    if (path is None) == (release is None):
        raise ValueError(
            f"either `path` or `release` with `sae_id` must be given, got `path`={path!r}, "
            f"`release`={release!r}"
        )
    if path is None:
        from saerepgeo.sae.io.registry import fetch_release, fetch_release_config

        return (release, sae_id), fetch_release_config, fetch_release
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"`path` must be a folder that holds an SAE, got {folder}: no such folder")
    if (folder / foreign.DICTIONARY_LEARNING_FILE).is_file():
        return (folder,), foreign.dictionary_learning_config, foreign.read_dictionary_learning
    if (folder / foreign.SPARSIFY_FILE).is_file():
        return (folder,), foreign.sparsify_config, foreign.read_sparsify
    if (folder / TRAINING_FOLDER / CONFIG_FILE).is_file():
        folder = folder / TRAINING_FOLDER
    return (folder,), _sae_lens_config, _read_sae_lens


def _sae_lens_config(folder: Path) -> dict[str, Any]:
    """Return the config of a SAELens folder in the 6.x layout."""
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    cfg = read_json(folder / CONFIG_FILE)
    check_integers(str(folder / CONFIG_FILE), cfg, "d_in", "d_sae")
    return handle_config_defaulting(cfg)


def _read_sae_lens(folder: Path) -> Stored:
    cfg, scaler = _sae_lens_config(folder), folder / SCALER_FILE
    scale = None
    if cfg.get("normalize_activations") == "expected_average_only_in" and scaler.is_file():
        scale = read_json(scaler).get("scaling_factor")
    return cfg, _without_finetuning_scale(read_safetensors(folder / WEIGHTS_FILE)), scale


def _without_finetuning_scale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the `scaling_factor` of SAELens before version 6; a factor of 1 has no effect."""
    factor = weights.pop("scaling_factor", None)
    if factor is not None and not torch.allclose(factor, torch.ones_like(factor)):
        # latents were multiplied by it on the way into the decoder alone
        weights["W_dec"] = weights["W_dec"].float() * factor.float()[:, None]
    return weights
