"""SAEs of SAELens' registry and of hub repositories, with errors that say what to do."""

from difflib import get_close_matches
from typing import Any

from torch import Tensor

from saerepgeo.lm.downloads import hub_files
from saerepgeo.sae.io.sae_lens import sae_lens


def fetch_release(
    release: str, sae_id: str | None
) -> tuple[dict[str, Any], dict[str, Tensor], float | None]:
    """Return config, weights and constant input scale of an SAE of a release.

    A release is a registered one, or a hub repository "owner/name" with a folder as its `sae_id`.
    The scale is the one that the registry records, None where the config needs none.

    Raises ValueError on an unknown release or id, and as `saerepgeo.lm.downloads.hub_files`:
    PermissionError on a gated or private repository, ConnectionError where the hub cannot be
    reached or a file arrives damaged.
    """
    sae_lens()
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading import pretrained_saes_directory as directory

    name = _checked_id(release, sae_id)
    repository, folder = directory.get_repo_id_and_folder_name(release, name)
    loader = loaders.NAMED_PRETRAINED_SAE_LOADERS[loaders.get_conversion_loader_name(release)]
    overrides = directory.get_config_overrides(release, name)
    with hub_files("SAE", f"{repository}/{folder}", repository):
        cfg, weights, _ = loader(
            repo_id=repository,
            folder_name=folder,
            device="cpu",
            force_download=False,
            cfg_overrides=overrides | {"dtype": "float32", "device": "cpu"},
        )
    cfg = loaders.handle_config_defaulting(cfg)
    is_scaled = cfg.get("normalize_activations") == "expected_average_only_in"
    return cfg, weights, directory.get_norm_scaling_factor(release, name) if is_scaled else None


def fetch_release_config(release: str, sae_id: str | None) -> dict[str, Any]:
    """Return the config of an SAE of a release, fetching no weights where they can be told apart.

    Raises as `fetch_release`.
    """
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

    name = _checked_id(release, sae_id)
    repository, folder = get_repo_id_and_folder_name(release, name)
    with hub_files("SAE", f"{repository}/{folder}", repository):
        return load_sae_config_from_huggingface(release, name)


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
