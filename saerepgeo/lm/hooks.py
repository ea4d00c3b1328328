"""TransformerLens' names for places in a model: which exist, and what they give."""

import difflib
import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saerepgeo.lm.sources import text_config
from saerepgeo.lm.tokenizer import LMTokenizer

LAYER = re.compile(r"blocks\.(\d+)\.")
RESIDUAL_HOOK = re.compile(LAYER.pattern + r"hook_resid_(pre|post)")
NEAR_THE_SAME = 1e-4
"""Relative difference up to which two ways to the same residuals are rounding."""


def check_hook_name(name: str, hook_name: str) -> None:
    """Check, from the model's configuration alone, that `hook_name` names an existing layer.

    Raises ValueError on an unknown model, or a layer that the model has not got.
    """
    n_layers = text_config(name).num_hidden_layers
    match = LAYER.match(hook_name)
    if match and int(match[1]) >= n_layers:
        layers = f"layers 0 to {n_layers - 1} of `{name}`"
        raise ValueError(f"`hook_name` must name one of the {layers}, got `{hook_name}`")


def hooked(model: nn.Module, tokenizer: LMTokenizer, name: str, device: torch.device) -> Any:
    """Return the TransformerBridge of a model; ValueError where TransformerLens has none."""
    from transformer_lens.model_bridge import TransformerBridge

    try:
        return TransformerBridge.boot_transformers(
            name, hf_model=model, tokenizer=tokenizer.tokenizer, device=device
        )
    except Exception as error:  # of whatever sort: it meets a configuration that it does not know
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(f"TransformerLens cannot hook model `{name}`: {reason}") from error


@torch.no_grad()
def check_hook(bridge: Any, name: str, hook_name: str, example: Tensor) -> None:
    """Refuse a hook that is none, is not d_model wide, or sees tokens to come.

    `example` are some tokens `[1, position]`. Raises ValueError.
    """
    if hook_name not in bridge.hook_dict:
        near = difflib.get_close_matches(hook_name, list(bridge.hook_dict), n=3)
        raise ValueError(
            f"`hook_name` must be a TransformerLens hook of `{name}`, got `{hook_name}`; near it: "
            f"{', '.join(near) or 'none, see TransformerBridge.hook_dict'}"
        )
    if hook_name.endswith("hook_mlp_in"):  # off unless it is asked for
        bridge.set_use_hook_mlp_in(True)
    tokens = example.repeat(2, 1)
    tokens[1, -1] -= 1
    found, d_model = read_hooks(bridge, [hook_name], tokens).get(hook_name), bridge.cfg.d_model
    if found is None:
        raise ValueError(
            f"`hook_name` {hook_name} gives nothing, or one copy a head, in `{name}`; attention "
            "reads hook_resid_pre and the MLP hook_resid_mid: choose one of those"
        )
    if found.shape != (*tokens.shape, d_model):
        raise ValueError(
            f"`hook_name` must give d_model = {d_model} entries a position, got `{hook_name}`, "
            f"which gives shape {tuple(found.shape)} for {len(tokens)} prompts of "
            f"{tokens.shape[1]} tokens; choose e.g. hook_resid_post or hook_mlp_out"
        )
    if not torch.isfinite(found).all():
        raise ValueError(f"model `{name}` gives NaN or infinity at `{hook_name}`")
    one, other = found[:, :-1]
    if (one - other).norm() > NEAR_THE_SAME * one.norm():
        raise ValueError(
            f"model `{name}` must be causal, as GPT-2 or Llama is: here a token changes the "
            "residuals before it, as in an encoder (BERT)"
        )


def read_hooks(bridge: Any, hook_names: Sequence[str], tokens: Tensor) -> dict[str, Tensor]:
    """Return what each hook gives for tokens, running no later layer; no entry where nothing."""
    matches = [LAYER.match(name) for name in hook_names]
    layers = [int(match[1]) for match in matches if match]
    stop = max(layers) + 1 if layers and all(matches) else None
    with warnings.catch_warnings():  # what is switched off gives nothing, and is refused
        warnings.filterwarnings("ignore", message="run_with_cache: skipped")
        _, cache = bridge.run_with_cache(
            tokens, names_filter=list(hook_names), stop_at_layer=stop, return_type=None
        )
    return {name: found for name, found in cache.items() if name in hook_names}
