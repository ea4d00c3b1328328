"""SAEs of SAELens' registry and of hub repositories, with errors that say what to do."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from saerepgeo.lm.downloads import hub_files
from saerepgeo.sae.io.files import Stored
from saerepgeo.sae.io.sae_lens import sae_lens


def fetch_release(release: str, sae_id: str | None, with_weights: bool = True) -> Stored:
    """Return config, weights and constant input scale of an SAE of a release.

    A release is a registered one, or a hub repository "owner/name" with a folder as its `sae_id`.
    The scale is the one that the registry records, None where the config needs none. Without
    `with_weights` only the config is returned, and no weights are fetched where they are apart.

    Raises ValueError on an unknown release or id, and as `saerepgeo.lm.downloads.hub_files`:
    PermissionError on a gated or private repository, ConnectionError where the hub cannot be
    reached or a file arrives damaged.
    """
    sae_lens()
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading import pretrained_saes_directory as directory

    name = _checked_id(release, sae_id, directory.get_pretrained_saes_directory())
    repository, folder = directory.get_repo_id_and_folder_name(release, name)
    with hub_files("SAE", f"{repository}/{folder}", repository):
        if not with_weights:
            return loaders.load_sae_config_from_huggingface(release, name), {}, None
        load = loaders.NAMED_PRETRAINED_SAE_LOADERS[loaders.get_conversion_loader_name(release)]
        overrides = directory.get_config_overrides(release, name)
        overrides |= {"dtype": "float32", "device": "cpu"}
        cfg, weights, _ = load(repository, folder, "cpu", False, overrides)
    cfg = loaders.handle_config_defaulting(cfg)
    is_scaled = cfg.get("normalize_activations") == "expected_average_only_in"
    return cfg, weights, directory.get_norm_scaling_factor(release, name) if is_scaled else None


def matching_saes(release: str, sae_id: str) -> list[tuple[str, str]]:
    """Return release and id of every SAE of SAELens' registry that two regular expressions fit.

    Each must fit a name whole; a name itself fits, whatever its characters. A hub repository
    "owner/name" is taken as it is. Raises ValueError on a bad expression, and where nothing fits.
    """
    sae_lens()
    from sae_lens.loading import pretrained_saes_directory as directory

    known = directory.get_pretrained_saes_directory()
    if release not in known and re.fullmatch(r"[\w.-]+/[\w.-]+", release):
        return [(release, sae_id)]
    releases = _fitting("release", release, known)
    found = [
        (name, each)
        for name in releases
        for each in _fitting("sae_id", sae_id, known[name].saes_map)
    ]
    if not found:
        _checked_id(releases[0] if releases else release, sae_id, known)  # says the nearest
    return found


def _fitting(what: str, pattern: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    if pattern in names:
        return [pattern]
    try:
        return [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ValueError(
            f"`{what}` must be a name or a regular expression, got {pattern!r}: {error}"
        ) from None


def _checked_id(release: str, sae_id: str | None, directory: dict[str, Any]) -> str:
    if not sae_id:
        raise ValueError("`sae_id` must name an SAE of the `release`, got none")
    if release in directory and sae_id not in (known := directory[release].saes_map):
        close = get_close_matches(sae_id, known, n=3, cutoff=0.0)
        raise ValueError(
            f"`sae_id` must be an SAE of release {release!r}, got {sae_id!r}; "
            f"the nearest of {len(known)} are: {', '.join(close)}"
        )
    if release not in directory and "/" not in release:
        close = get_close_matches(release, directory, n=3, cutoff=0.0)
        raise ValueError(
            "`release` must be registered in SAELens or a hub repository owner/name, got "
            f"{release!r}; the nearest registered are: {', '.join(close)}"
        )
    return sae_id
