"""Load an SAE for analysis or further training: SAELens release, SAELens folder, foreign folder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saerepgeo.sae.io import foreign
from saerepgeo.sae.io.build import assemble, sae_lens_config
from saerepgeo.sae.io.files import (
    Stored,
    check_integers,
    check_metadata,
    check_numbers,
    read_json,
    read_safetensors,
)
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.model import SAEModel
from saerepgeo.shipped import located

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

    A folder is SAELens' training or inference form (cfg.json + sae_weights.safetensors; of both,
    the training form is taken), dictionary_learning's (config.json + ae.pt) or sparsify's (cfg.json
    + sae.safetensors). Weights come back as float32 whatever they are stored in. `training`
    overrides settings that an inference form does not hold (see `build.training_config`).
    `input_scale` is the constant input factor of SAEs trained with expected_average_only_in whose
    files do not hold it.

    Raises ValueError, before any weights are read, on a missing folder or file, a config that is
    not one, an architecture that cannot be trained, tensors of the wrong names or shapes.
    """
    if path is not None:  # refuse before the weights are read
        sae_lens_config(read_config(release, sae_id, path) | {"device": "cpu"}, training)
    cfg, weights, recorded = _read(release, sae_id, path)
    check_numbers(f"in {path}" if path is not None else f"{release} {sae_id}", weights)
    return assemble(
        cfg, weights, training, recorded if input_scale is None else input_scale, device
    )


def read_config(
    release: str | None = None, sae_id: str | None = None, path: str | Path | None = None
) -> dict[str, Any]:
    """Return the config of what `load_sae` would load, without reading any weights.

    It holds at least d_in, d_sae and metadata, under SAELens' names. Raises as `load_sae`.
    """
    return _read(release, sae_id, path, with_weights=False)[0]


def _read(
    release: str | None, sae_id: str | None, path: str | Path | None, with_weights: bool = True
) -> Stored:
    """Return what a release or a folder holds; no weights and no scale without `with_weights`."""
    if (path is None) == (release is None):
        raise ValueError(
            f"either `path` or `release` with `sae_id` must be given, got `path`={path!r}, "
            f"`release`={release!r}"
        )
    if path is None:
        from saerepgeo.sae.io.registry import fetch_release

        return fetch_release(str(release), sae_id, with_weights)
    folder = located(path)
    if not folder.is_dir():
        raise ValueError(f"`path` must be a folder that holds an SAE, got {folder}: no such folder")
    for file, read in foreign.READERS.items():
        if (folder / file).is_file():
            try:
                return read(folder, with_weights)
            except (LookupError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"the config beside {folder / file} is not as its library writes it: {error!r}"
                ) from error
    if (folder / TRAINING_FOLDER / CONFIG_FILE).is_file():
        folder = folder / TRAINING_FOLDER
    return _read_sae_lens(folder, with_weights)


def _read_sae_lens(folder: Path, with_weights: bool) -> Stored:
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    cfg = read_json(folder / CONFIG_FILE)
    check_integers(str(folder / CONFIG_FILE), cfg, "d_in", "d_sae")
    told = cfg["metadata"] = cfg.get("metadata") or {}
    check_metadata(str(folder / CONFIG_FILE), told)
    try:
        cfg = handle_config_defaulting(cfg)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / CONFIG_FILE} is not as SAELens writes it: {error!r}; fetch it again"
        ) from error
    cfg["metadata"] |= told  # without a version they are taken for an old config's, and dropped
    if not with_weights:
        return cfg, {}, None
    scaler, scale = folder / SCALER_FILE, None
    if cfg.get("normalize_activations") == "expected_average_only_in" and scaler.is_file():
        scale = read_json(scaler).get("scaling_factor")
        if not isinstance(scale, int | float):
            raise ValueError(f"{scaler} must hold a number `scaling_factor`, got {scale!r:.60}")
    return cfg, _without_finetuning_scale(read_safetensors(folder / WEIGHTS_FILE)), scale


def _without_finetuning_scale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the `scaling_factor` of SAELens before version 6; a factor of 1 has no effect."""
    factor = weights.pop("scaling_factor", None)
    if factor is not None and not torch.allclose(factor, torch.ones_like(factor)):
        # latents were multiplied by it on the way into the decoder alone
        weights["W_dec"] = weights["W_dec"].float() * factor.float()[:, None]
    return weights
