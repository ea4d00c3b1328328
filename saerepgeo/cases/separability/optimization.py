"""Adam for SAEs: rates in the units of what they change, a schedule, clipping by global norm."""

from collections.abc import Callable
from typing import Any

import torch

from saerepgeo.sae.model import SAEModel


def parameter_groups(
    sae: SAEModel, lr: float, betas: tuple[float, float], bias_scale: float
) -> list[dict[str, Any]]:
    """Return an SAE's parameters for Adam: its biases, at `lr`·`bias_scale`, after the others.

    Adam moves every entry by about its rate a step: right for weights, whose rows have norm 1, but
    biases have the units of what the SAE sees; `bias_scale` is its root mean square entry.
    """
    named = [(name.split(".")[-1], p) for name, p in sae.named_parameters()]
    biases = [p for name, p in named if name.startswith("b_")]
    others = [p for name, p in named if not name.startswith("b_")]
    rates = (others, lr), (biases, lr * bias_scale)
    return [{"params": params, "lr": rate, "betas": betas} for params, rate in rates]


def adam(groups: list[dict[str, Any]]) -> torch.optim.Adam:
    """Return fused Adam over `parameter_groups`."""
    return torch.optim.Adam(groups, fused=True)


def warmup_plateau_decay(
    n_steps: int | float, warmup_steps: int, decay_fraction: float
) -> Callable[[int], float]:
    """Return the factor of the rate by step: a linear rise, a plateau, a linear fall to 0.

    factor(t) = min(1, (t + 1)/warm-up, (n − t)/(`decay_fraction`·n)). Without an end (n = `n_steps`
    not positive, or infinite) the rate never falls.
    """
    n_decay = decay_fraction * n_steps if 0 < n_steps < float("inf") else 0.0

    def factor(step: int) -> float:
        warm = (step + 1) / max(warmup_steps, 1)
        decay = (n_steps - step) / n_decay if n_decay > 0 else 1.0
        return min(1.0, warm, max(decay, 0.0))

    return factor


def clip_gradients_(sae: SAEModel, limit: float | None, algorithm: str | None) -> Any:
    """Clip as Lightning's trainer is told to; return the norm before, None when clipped by value.

    Lightning refuses to clip for fused optimizers under mixed precision; only float16 needs that.
    """
    parameters = [p for p in sae.parameters() if p.grad is not None]
    if algorithm == "value" and limit is not None:
        torch.nn.utils.clip_grad_value_(parameters, limit)
        return None
    norm: Any = torch.nn.utils.clip_grad_norm_(parameters, limit if limit else float("inf"))
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of a sharded SAE
