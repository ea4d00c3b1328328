"""SAEs of SAELens' registry and of hub repositories, with errors that say what to do."""

from difflib import get_close_matches
from typing import Any

from torch import Tensor

from saerepgeo.lm.downloads import hub_files
from saerepgeo.sae.io.build import assemble, check_architecture
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.model import SAEModel

__all__ = ["load_release", "read_release_config"]


def load_release(
    release: str,
    sae_id: str | None,
    device: str,
    training: dict[str, Any] | None,
    input_scale: float | None,
) -> SAEModel:
    """Return the SAE of a registered release, or of a hub repository "owner/name" and its folder.

    The constant input scale that the registry records for a release is used where `input_scale`
    is None.

    Raises ValueError on an unknown release or id, and as `saerepgeo.lm.downloads.hub_files`:
    PermissionError on a gated or private repository, ConnectionError where the hub cannot be
    reached or a file arrives damaged.
    """
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
    from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor

    name = _checked_id(release, sae_id)
    cfg, weights = _fetch(release, name)
    cfg = handle_config_defaulting(cfg)
    check_architecture(cfg, training)
    is_scaled = cfg.get("normalize_activations") == "expected_average_only_in"
    if is_scaled and input_scale is None:
        input_scale = get_norm_scaling_factor(release, name)
    return assemble(cfg, weights, training, input_scale, device)


def _checked_id(release: str, sae_id: str | None) -> str:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    if not sae_id:
        raise ValueError("`sae_id` must name an SAE of the `release`, got none")
    directory = get_pretrained_saes_directory()
    if release in directory:
        known = directory[release].saes_map
        if sae_id not in known:
            close = get_close_matches(sae_id, known, n=3, cutoff=0.0)
            raise ValueError(
                f"`sae_id` must be an SAE of release {release!r}, got {sae_id!r}; "
                f"the nearest of {len(known)} are: {', '.join(close)}"
            )
    elif "/" not in release:
        close = get_close_matches(release, directory, n=3, cutoff=0.0)
        raise ValueError(
            "`release` must be registered in SAELens or a hub repository owner/name, got "
            f"{release!r}; the nearest registered are: {', '.join(close)}"
        )
    return sae_id


def read_release_config(release: str, sae_id: str | None) -> dict[str, Any]:
    """Return the config of an SAE of a release, fetching no weights where they can be told apart.

    Raises as `load_release`.
    """
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

    name = _checked_id(release, sae_id)
    repository, folder = get_repo_id_and_folder_name(release, name)
    with hub_files("SAE", f"{repository}/{folder}", repository):
        config: dict[str, Any] = load_sae_config_from_huggingface(release, name)
    return config


def _fetch(release: str, sae_id: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import (
        get_config_overrides,
        get_repo_id_and_folder_name,
    )

    repository, folder = get_repo_id_and_folder_name(release, sae_id)
    loader = loaders.NAMED_PRETRAINED_SAE_LOADERS[loaders.get_conversion_loader_name(release)]
    overrides = get_config_overrides(release, sae_id) | {"dtype": "float32", "device": "cpu"}
    with hub_files("SAE", f"{repository}/{folder}", repository):
        cfg, weights, _ = loader(
            repo_id=repository,
            folder_name=folder,
            device="cpu",
            force_download=False,
            cfg_overrides=overrides,
        )
    return cfg, weights
