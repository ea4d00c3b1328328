"""Whether an SAE and a language model belong together, told from their configurations alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saerepgeo.types import ModelFacts

__all__ = ["check_agreement"]

_RESIDUAL = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_BLOCK_OUTPUT = re.compile(r"(?:\w+\.)*(?:layers|h)\.(\d+)")  # as transformers names the modules
_OTHER_WEIGHTS = ("revision", "checkpoint_index", "checkpoint_value")
_OUR_NAMES = {"smollm2-135m": "smollm2-135m-instruct"}


def check_agreement(
    sae_config: Mapping[str, Any], data: Mapping[str, Any], model: ModelFacts | None = None
) -> list[str]:
    """Refuse an SAE and a data module that do not belong together; return remarks on what differs.

    Compared, as far as the SAE's metadata say: the model (unless it is a local folder, whose name
    tells nothing), the hook, d_in, the processing of the model's weights, the context size. Needs
    no weights: call it before any are read.

    Args:
        sae_config: the SAE's configuration, SAELens' names: d_in, metadata (model_name, hook_name,
            model_from_pretrained_kwargs, context_size, prepend_bos, …).
        data: settings of the data module: lm, hook_name, center_residuals, and context_size where
            contexts of background text are read.
        model: what the model's own configuration says.

    Raises:
        ValueError: they disagree; one line that names every point and what to set.

    >>> check_agreement({"d_in": 8, "metadata": {"hook_name": "blocks.1.hook_resid_post"}},
    ...                 {"lm": "gpt2", "hook_name": "blocks.2.hook_resid_pre"})
    []
    """
    metadata = sae_config.get("metadata") or {}
    found = [
        *_model(metadata, data),
        *_hook(metadata, data),
        *_width(sae_config, data, model),
        *_processing(metadata, data, model),
        *_context(metadata, data),
    ]
    if found:
        raise ValueError("SAE and data module disagree: " + "; ".join(found))
    if metadata.get("prepend_bos") is False:
        return [
            "the SAE was trained on contexts without BOS; here every prompt begins with it (the "
            "position itself never reaches the SAE)"
        ]
    return []


def _model(metadata: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    expected, lm = metadata.get("model_name"), str(data["lm"])
    if not expected or _is_local(lm) or _is_local(expected) or _same_model(expected, lm):
        return []
    return [
        f"the SAE belongs to model `{expected}`, `data.lm` is `{lm}`; set the former, or give the "
        "model as a local folder where the difference is meant"
    ]


def _hook(metadata: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    expected, hook = metadata.get("hook_name"), data["hook_name"]
    found = []
    if expected and _place(expected) != _place(hook):
        found.append(
            f"the SAE belongs to hook `{expected}`, `data.hook_name` is `{hook}`; set the former"
        )
    head, reshape = metadata.get("hook_head_index"), metadata.get("reshape_activations")
    if head is not None or reshape not in (None, "none"):
        found.append(
            f"the SAE reads heads of `{expected}` (hook_head_index {head}, reshape {reshape}), "
            "which is not supported; choose an SAE of the residual stream or of a layer's output"
        )
    return found


def _width(
    sae_config: Mapping[str, Any], data: Mapping[str, Any], model: ModelFacts | None
) -> list[str]:
    if model is None or sae_config["d_in"] == model.d_model:
        return []
    return [
        f"the SAE reads residuals of width {sae_config['d_in']} (d_in), those of `{data['lm']}` "
        f"have {model.d_model}; set the `data.lm` that it was trained on"
    ]


def _processing(
    metadata: Mapping[str, Any], data: Mapping[str, Any], model: ModelFacts | None
) -> list[str]:
    settings = metadata.get("model_from_pretrained_kwargs")
    if settings is None:
        return []
    found = [
        f"the SAE was trained on other weights of the model ({name} {settings[name]}); fetch them "
        "into a folder and give that as `data.lm`"
        for name in _OTHER_WEIGHTS
        if settings.get(name) is not None
    ]
    # TransformerLens centers what LayerNorm models write, and leaves RMSNorm models alone
    has_effect = model is None or model.has_layer_norm
    expected = bool(settings.get("center_writing_weights")) and has_effect
    if expected != bool(data.get("center_residuals")):
        found.append(
            f"the SAE was trained {'under' if expected else 'without'} center_writing_weights; "
            f"set `data.center_residuals: {str(expected).lower()}`"
        )
    return found


def _context(metadata: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    trained, size = metadata.get("context_size"), data.get("context_size")
    if not trained or not size or size <= trained:
        return []
    return [
        f"the SAE was trained on contexts of {trained} tokens, `data.context_size` is {size}; "
        f"set {trained} or less"
    ]


def _place(hook: str) -> str | int:
    """Return what stands for the same place under each of its names."""
    if match := _RESIDUAL.fullmatch(hook):
        return int(match[1]) + (match[2] == "post")
    if match := _BLOCK_OUTPUT.fullmatch(hook):
        return int(match[1]) + 1
    return hook


def _is_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".gguf") or Path(name).is_dir()


def _same_model(first: str, second: str) -> bool:
    if _canonical(first) == _canonical(second):
        return True
    from transformer_lens.supported_models import MODEL_ALIASES

    for official, aliases in MODEL_ALIASES.items():
        names = {_canonical(name) for name in (official, *aliases)}
        if {_canonical(first), _canonical(second)} <= names:
            return True
    return False


def _canonical(name: str) -> str:
    return _OUR_NAMES.get(name) or name.split("/")[-1].lower()
