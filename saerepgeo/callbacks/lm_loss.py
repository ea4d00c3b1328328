"""What the language model loses with the SAE spliced into its residual stream."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from saerepgeo.bounds import PositiveInt, check_settings
from saerepgeo.data.cache import LMSettings, cached_tensors, tokens_key
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.sources import model_fingerprint
from saerepgeo.metrics import CrossEntropyRecovered, KLRecovered
from saerepgeo.types import Float, Int

CONTEXTS_PER_CALL = 4
"""Log-probabilities over the vocabulary are the largest tensors of the package."""

Splice = Callable[[Tensor], Tensor]


class LMLoss(Callback):
    """At the last validation log how much of the model's prediction survives the SAE.

    `val/ce_recovered`, `val/kl_recovered`, and what they are made of in nats a token:
    `val/ce_clean`, `val/ce_sae`, `val/ce_zero`, `val/kl_sae`, `val/kl_zero`; over at most
    `n_contexts` contexts of held-out text. The last validation is that of `validate`, and of `fit`
    the one after `max_steps`. Only there is the language model loaded, and not where the losses of
    this very SAE are in the disk cache.
    """

    def __init__(self, n_contexts: PositiveInt = 16) -> None:
        check_settings(LMLoss, locals())
        self.n_contexts = n_contexts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if hasattr(pl_module, "saes"):
            raise ValueError(
                "LMLoss reads one SAE, and `model` trains many: leave it out, `python -m saerepgeo "
                "compare` finds these losses of each"
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and trainer.global_step < trainer.max_steps:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        tokens = data.heldout_contexts()[: self.n_contexts]
        own = tokens[trainer.global_rank :: trainer.world_size]
        # a sharded SAE's passes are of all processes together: each makes as many as every other,
        # and none may find its own in the cache
        n_calls = -(-len(tokens) // (trainer.world_size * CONTEXTS_PER_CALL))
        model: Any = pl_module.sae
        known = sae_fingerprint(model) if trainer.world_size == 1 else None
        figures = recovery_figures(
            lambda: data.lm, data.lm_settings, own, model, pl_module.device, n_calls, known
        )
        for name, value in figures.items():
            pl_module.log(f"val/{name}", value)


def recovery_figures(
    lm: Callable[[], FrozenLM],
    settings: LMSettings,
    tokens: Int[Tensor, "context position"],
    sae: nn.Module,
    device: torch.device | str = "cpu",
    n_calls: int | None = None,
    fingerprint: str | None = None,
) -> dict[str, float]:
    """Return ce_recovered, kl_recovered and the raw means in nats a token, over all processes.

    SAE and zeros stand at the positions that the SAE is for: real text, no attention sinks; BOS
    and sinks keep their residuals in both. Predictions are counted from such positions alone.

    `lm` is called only where losses are not in the disk cache. Contexts go through the model in
    `n_calls` parts, by default of `CONTEXTS_PER_CALL`. Without the `fingerprint` of the SAE's
    contents its losses are not kept.
    """
    cross_entropy, divergence = CrossEntropyRecovered().to(device), KLRecovered().to(device)
    was_training = sae.training
    sae.eval()
    n_calls = -(-len(tokens) // CONTEXTS_PER_CALL) if n_calls is None else n_calls
    for part in tokens.tensor_split(max(n_calls, 1)):
        ends, own = _losses(lm, settings, part, sae, fingerprint)
        counted = ends.pop("mask")[:, :-1]
        ends, own = ({k: v[counted].to(device) for k, v in found.items()} for found in (ends, own))
        cross_entropy.update(ends["clean"], ends["zero"], own["losses"])
        divergence.update(ends["kl"], own["kl"])
    sae.train(was_training)
    return {
        "ce_recovered": float(cross_entropy.compute()),
        "kl_recovered": float(divergence.compute()),
        **{f"ce_{name}": value for name, value in cross_entropy.raw.items()},
        **{f"kl_{name}": divergence.raw[name] for name in ("zero", "sae")},
    }


def sae_fingerprint(sae: nn.Module) -> str:
    """Return what changes when the SAE's configuration or any of its weights do."""
    digest = hashlib.sha256(type(sae).__name__.encode())
    config = getattr(getattr(sae, "sae", None), "cfg", None)
    if config is not None:
        digest.update(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def spliced(lm: FrozenLM, mask: Tensor, replace: Splice) -> Splice:
    """Return the splice that puts `replace(points)` at the positions of `mask`.

    A model read under `center_residuals` gives the SAE centered points; their means are put back.
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


def _losses(
    lm: Callable[[], FrozenLM],
    settings: LMSettings,
    tokens: Tensor,
    sae: nn.Module,
    fingerprint: str | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return losses of the clean model and of zeros, and losses with the SAE, by position."""
    clean = cache(lambda: lm().clean_losses(tokens))

    def both_ends() -> dict[str, Tensor]:
        mask = lm().is_point(tokens, lm().residuals(tokens))
        zero, log_probs = lm().token_losses(tokens, spliced(lm(), mask, torch.zeros_like))
        kl = _divergence(clean()[1], log_probs)
        found = {"clean": clean()[0], "zero": zero, "kl": kl, "mask": mask}
        return {name: tensor.cpu() for name, tensor in found.items()}

    def with_sae() -> dict[str, Tensor]:
        splice = spliced(lm(), ends["mask"].to(lm().device), lambda x: sae(x).recons)
        losses, log_probs = lm().token_losses(tokens, splice)
        return {"losses": losses.cpu(), "kl": _divergence(clean()[1], log_probs).cpu()}

    model = model_fingerprint(settings.name)
    ends = cached_tensors(tokens_key("losses without an SAE/2", model, settings, tokens), both_ends)
    if fingerprint is None:
        return ends, with_sae()
    key = tokens_key("losses with an SAE/2", model, settings, tokens) | {"sae": fingerprint}
    return ends, cached_tensors(key, with_sae)


def _divergence(
    clean: Float[Tensor, "context position token"], other: Float[Tensor, "context position token"]
) -> Float[Tensor, "context before_last"]:
    """Return KL(clean‖other) of the predictions at every position but the last, in nats."""
    clean, other = clean[:, :-1], other[:, :-1]
    return (clean.exp() * (clean - other)).sum(-1)
