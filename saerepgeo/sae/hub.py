"""SAEs of SAELens' registry and of hub repositories, with errors that say what to do."""

from difflib import get_close_matches
from typing import Any

from torch import Tensor

from saerepgeo.sae.build import assemble, training_config
from saerepgeo.sae.lens import sae_lens
from saerepgeo.sae.model import SAEModel

__all__ = ["load_release"]


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

    Raises ValueError on an unknown release or id, PermissionError on a gated or private
    repository, ConnectionError where the hub cannot be reached.
    """
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
    from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor

    name = _checked_id(release, sae_id)
    cfg, weights = _fetch(release, name)
    cfg = handle_config_defaulting(cfg)
    training_config(cfg | {"device": "cpu"}, training)
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


def _fetch(release: str, sae_id: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from huggingface_hub import errors
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import (
        get_config_overrides,
        get_repo_id_and_folder_name,
    )

    repository, folder = get_repo_id_and_folder_name(release, sae_id)
    loader = loaders.NAMED_PRETRAINED_SAE_LOADERS[loaders.get_conversion_loader_name(release)]
    overrides = get_config_overrides(release, sae_id) | {"dtype": "float32", "device": "cpu"}
    address = f"{repository}/{folder}"
    try:
        cfg, weights, _ = loader(
            repo_id=repository,
            folder_name=folder,
            device="cpu",
            force_download=False,
            cfg_overrides=overrides,
        )
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{repository} is gated: accept its terms at https://huggingface.co/{repository}, then "
            "run `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PermissionError(
            f"{repository} does not exist or is private; check the name, or run `hf auth login` "
            "or set HF_TOKEN"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ConnectionError(
            f"{address} is not in the local hub cache and the hub cannot be reached; "
            "go online once, or pass a folder as `path`"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ValueError(f"{address} holds no SAE: {str(error).splitlines()[0]}") from error
    except (errors.HfHubHTTPError, ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"{address} could not be fetched ({str(error).splitlines()[0]}); try again, finished "
            "files are kept"
        ) from error
    return cfg, weights
