"""What the language model loses with the SAE spliced into its residual stream."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from saerepgeo.cache import cached_tensors, model_fingerprint
from saerepgeo.lm import FrozenLM, is_sink
from saerepgeo.metrics import CrossEntropyRecovered, KLRecovered
from saerepgeo.types import Float, Int

__all__ = ["LMLoss", "recovery_figures", "spliced"]

CONTEXTS_PER_CALL = 4
"""Log-probabilities over the vocabulary are the largest tensors of the package."""

Splice = Callable[[Tensor], Tensor]


class LMLoss(Callback):
    """At the last validation log how much of the model's prediction survives the SAE.

    `val/ce_recovered`, `val/kl_recovered`, and what they are made of in nats a token:
    `val/ce_clean`, `val/ce_sae`, `val/ce_zero`, `val/kl_sae`, `val/kl_zero`. The last validation is
    that of `validate`, and of `fit` the one after `max_steps`.

    Args:
        n_contexts: contexts of held-out text, at most.
    """

    def __init__(self, n_contexts: int = 16) -> None:
        if n_contexts < 1:
            raise ValueError(f"`n_contexts` must be at least 1, got {n_contexts}")
        self.n_contexts = n_contexts

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and trainer.global_step < trainer.max_steps:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        tokens = data.heldout_contexts()[: self.n_contexts]
        own = tokens[trainer.global_rank :: trainer.world_size]
        most = -(-len(tokens) // trainer.world_size)
        n_calls = -(-most // CONTEXTS_PER_CALL)  # all processes take part in a split SAE's passes
        model: Any = pl_module.sae
        figures = recovery_figures(data.lm, own, model, pl_module.device, n_calls)
        for name, value in figures.items():
            pl_module.log(f"val/{name}", value)


def recovery_figures(
    lm: FrozenLM,
    tokens: Int[Tensor, "context position"],
    sae: nn.Module,
    device: torch.device | str = "cpu",
    n_calls: int | None = None,
) -> dict[str, float]:
    """Return ce_recovered, kl_recovered and the raw means in nats a token, over all processes.

    The contexts go through the model in `n_calls` parts, by default of `CONTEXTS_PER_CALL`.

    SAE and zeros stand at the positions that the SAE is for: real text, no attention sinks; BOS
    and sinks keep their residuals in both. Predictions are counted from such positions alone.
    """
    cross_entropy = CrossEntropyRecovered().to(device)
    divergence = KLRecovered().to(device)
    was_training = sae.training
    sae.eval()
    n_calls = -(-len(tokens) // CONTEXTS_PER_CALL) if n_calls is None else n_calls
    for part in tokens.tensor_split(max(n_calls, 1)):
        clean = lm.token_losses(part)
        mask = _spliced_positions(lm, part)
        counted = mask[:, :-1]
        zero = _zero_losses(lm, part, clean, mask)
        losses, log_probs = lm.token_losses(part, spliced(lm, mask, lambda x: sae(x).recons))
        kl = _divergence(clean[1], log_probs)
        cross_entropy.update(clean[0][counted], zero["losses"][counted], losses[counted])
        divergence.update(zero["kl"][counted], kl[counted])
    sae.train(was_training)
    figures = {
        "ce_recovered": float(cross_entropy.compute()),
        "kl_recovered": float(divergence.compute()),
    }
    figures |= {f"ce_{name}": value for name, value in cross_entropy.raw.items()}
    return figures | {f"kl_{name}": divergence.raw[name] for name in ("zero", "sae")}


def spliced(lm: FrozenLM, mask: Tensor, replace: Splice) -> Splice:
    """Return the splice that puts `replace(points)` at the positions of `mask`.

    A model read under `center_residuals` gives the SAE centred points; their means are put back.
    """

    def splice(residuals: Tensor) -> Tensor:
        points = residuals[mask].float()
        shift = points.mean(-1, keepdim=True) if lm.center_residuals else 0.0
        with torch.autocast(residuals.device.type, enabled=False):
            new = replace(points - shift) + shift
        out = residuals.clone()
        out[mask] = new.to(out.dtype)
        return out

    return splice


def _spliced_positions(lm: FrozenLM, tokens: Tensor) -> Tensor:
    residuals = lm.residuals(tokens)
    is_real = lm.tokenizer.is_real(tokens).to(residuals.device)
    return is_real & ~is_sink(residuals, is_real)


def _zero_losses(
    lm: FrozenLM, tokens: Tensor, clean: tuple[Tensor, Tensor], mask: Tensor
) -> dict[str, Tensor]:
    """Return cross entropies and divergences under zero ablation, from the disk cache if there."""

    def compute() -> dict[str, Tensor]:
        losses, log_probs = lm.token_losses(tokens, spliced(lm, mask, torch.zeros_like))
        return {"losses": losses.cpu(), "kl": _divergence(clean[1], log_probs).cpu()}

    key = {
        "kind": "zero ablation/1",
        "model": model_fingerprint(lm.name),
        "hook_name": lm.hook_name,
        "dtype": str(lm.autocast_dtype),
        "center_residuals": lm.center_residuals,
        "tokens": [hashlib.sha256(tokens.numpy().tobytes()).hexdigest(), *tokens.shape],
    }
    return {k: v.to(clean[0].device) for k, v in cached_tensors(key, compute).items()}


def _divergence(
    clean: Float[Tensor, "context position token"], other: Float[Tensor, "context position token"]
) -> Float[Tensor, "context before_last"]:
    """Return KL(clean‖other) of the predictions at every position but the last, in nats."""
    clean, other = clean[:, :-1], other[:, :-1]
    return (clean.exp() * (clean - other)).sum(-1)
