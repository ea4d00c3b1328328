"""Whether an SAE and a language model belong together, told from their configurations alone."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saerepgeo.types import ModelFacts

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
    no weights: call it before any are read. `sae_config` has SAELens' names (d_in, metadata).
    `data` are settings of the data module: lm, hook_name, center_residuals, and context_size where
    contexts of background text are read.

    Raises ValueError where they disagree, with every point and what to set in one line.

    >>> check_agreement({"d_in": 8, "metadata": {"hook_name": "blocks.1.hook_resid_post"}},
    ...                 {"lm": "gpt2", "hook_name": "blocks.2.hook_resid_pre"})
    []
    """
    if not isinstance(hook := data["hook_name"], str):
        raise ValueError(
            f"`data.hook_name` must be one hook, got {hook}: a list is for SAEFamilyModule"
        )
    metadata = sae_config.get("metadata") or {}
    found = [*_place_differs(metadata, data), *_weights_differ(metadata, data, model)]
    if model is not None and (d_in := sae_config["d_in"]) != model.d_model:
        is_new = "metadata" not in sae_config
        mend = (
            f"`sae.d_in` to {model.d_model}" if is_new else "the `data.lm` that it was trained on"
        )
        found.append(
            f"the SAE reads residuals of width {d_in} (d_in), those of `{data['lm']}` have "
            f"{model.d_model}; set {mend}"
        )
    trained, size = metadata.get("context_size"), data.get("context_size")
    if trained and size and size > trained:
        found.append(
            f"the SAE was trained on contexts of {trained} tokens, `data.context_size` is {size}; "
            f"set {trained} or less"
        )
    if found:
        raise ValueError("SAE and data module disagree: " + "; ".join(found))
    if metadata.get("prepend_bos") is not False:
        return []
    return [
        "the SAE was trained on contexts without BOS; here every prompt begins with it (the "
        "position itself never reaches the SAE)"
    ]


def _place_differs(metadata: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    expected, lm = metadata.get("model_name"), str(data["lm"])
    if expected and not (_is_local(lm) or _is_local(expected) or _same_model(expected, lm)):
        yield (
            f"the SAE belongs to model `{expected}`, `data.lm` is `{lm}`; set the former, or give "
            "the model as a local folder where the difference is meant"
        )
    expected, hook = metadata.get("hook_name"), data["hook_name"]
    if expected and _place(expected) != _place(hook):
        yield f"the SAE belongs to hook `{expected}`, `data.hook_name` is `{hook}`; set the former"
    head, reshape = metadata.get("hook_head_index"), metadata.get("reshape_activations")
    if head is not None or reshape not in (None, "none"):
        yield (
            f"the SAE reads heads of `{expected}` (hook_head_index {head}, reshape {reshape}), "
            "which is not supported; choose an SAE of the residual stream or of a layer's output"
        )


def _weights_differ(
    metadata: Mapping[str, Any], data: Mapping[str, Any], model: ModelFacts | None
) -> Iterator[str]:
    settings = metadata.get("model_from_pretrained_kwargs")
    if settings is None:
        return
    for name in _OTHER_WEIGHTS:
        if settings.get(name) is not None:
            yield (
                f"the SAE was trained on other weights of the model ({name} {settings[name]}); "
                "fetch them into a folder and give that as `data.lm`"
            )
    # TransformerLens centers what LayerNorm models write, and leaves RMSNorm models alone
    has_effect = model is None or model.has_layer_norm
    expected = bool(settings.get("center_writing_weights")) and has_effect
    if expected != bool(data.get("center_residuals")):
        yield (
            f"the SAE was trained {'under' if expected else 'without'} center_writing_weights; "
            f"set `data.center_residuals: {str(expected).lower()}`"
        )


def our_hook(hook: str | None) -> str | None:
    """Return TransformerLens' name of a hook, where `transformers` names a block instead.

    >>> our_hook("model.layers.10"), our_hook("blocks.3.hook_mlp_out")
    ('blocks.10.hook_resid_post', 'blocks.3.hook_mlp_out')
    """
    match = _BLOCK_OUTPUT.fullmatch(hook or "")
    return f"blocks.{match[1]}.hook_resid_post" if match else hook


def _place(hook: str) -> str | int:
    """Return what stands for the same place under each of its names."""
    if match := _RESIDUAL.fullmatch(hook):
        return int(match[1]) + (match[2] == "post")
    match = _BLOCK_OUTPUT.fullmatch(hook)
    return int(match[1]) + 1 if match else hook


def _is_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".gguf") or Path(name).is_dir()


def _same_model(x: str, y: str) -> bool:
    both = {_canonical(x), _canonical(y)}
    if len(both) == 1:
        return True
    from transformer_lens.supported_models import MODEL_ALIASES

    return any(both <= {_canonical(n) for n in (k, *v)} for k, v in MODEL_ALIASES.items())


def _canonical(name: str) -> str:
    return _OUR_NAMES.get(name) or name.split("/")[-1].lower()
