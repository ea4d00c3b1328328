"""The language model in bfloat16: what is cast once in place of at every call, same numbers out."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Dtype = Literal["auto", "float32", "bfloat16"]


def has_native_bfloat16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(probe())


def autocast_dtype(dtype: Dtype, device: torch.device) -> torch.dtype | None:
    """Return what matrices are multiplied in; None for float32, without autocast.

    Raises ValueError where `dtype` is none of auto, float32, bfloat16.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"`dtype` must be auto, float32 or bfloat16, got `{dtype}`")
    use = dtype == "bfloat16" or (dtype == "auto" and has_native_bfloat16(device))
    return torch.bfloat16 if use else None


def hold_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold the matrices in the autocast dtype, not cast anew at each call."""
    for module in model.modules():
        if type(module) is nn.Linear or type(module).__name__ == "Conv1D":
            for name, tensor in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(tensor.to(dtype), requires_grad=False))


@torch.no_grad()
def cast_norms_once(
    model: nn.Module, dtype: torch.dtype, run: Callable[[], Tensor]
) -> dict[str, int]:
    """Let normalizations give the autocast dtype where only matrix products read what they give.

    Each product would cast the same tensor for itself (query, key, value; gate, up). Norms of one
    name are taken together, and keep it only if `run()`, a pass through the model, gives the same
    bits as before: a norm whose output goes anywhere else is left as it is.
    Returns how many norms of which name were changed.
    """

    def cast(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.to(dtype)

    by_name: dict[str, list[nn.Module]] = {}
    for path, module in model.named_modules():
        if "Norm" in type(module).__name__:
            by_name.setdefault(path.rpartition(".")[2], []).append(module)
    expected, changed = run(), {}
    for name, norms in by_name.items():
        hooks = [norm.register_forward_hook(cast) for norm in norms]
        if run().equal(expected):
            changed[name] = len(norms)
        else:
            for hook in hooks:
                hook.remove()
    return changed
