"""The decoder's norms: the scale of the latents, and rows that keep their length."""

from typing import Any

import torch
from torch import Tensor, nn

from saerepgeo.sae.sparse.active_pairs import Latents, Pairs, PerLatent
from saerepgeo.sae.sparse.pair_products import gather_scalars
from saerepgeo.types import Bool, Float, Int, SparseLatents

_TOLERANCE = 5e-3  # half-precision weights move a row's norm by about 1e-3


class DecoderNorms(nn.Module):
    """A model whose `sae.W_dec` holds the decoder rows, with all that concerns their norms."""

    sae: Any
    decoder_norm_target: Tensor
    """The common norm of the rows when the model was made, 0 where they differed."""
    has_constant_decoder_norm: bool
    """Whether all decoder rows had one norm when the model was made."""

    def _hold_norm(self) -> None:
        """Note the common norm of the rows, if they have one; a state dict brings its own."""
        self.register_buffer("decoder_norm_target", constant_norm(self.sae.W_dec))
        _note_constant_norm(self)
        self.register_load_state_dict_post_hook(_note_constant_norm)

    @property
    def rescales_by_norm(self) -> bool:
        """Whether the latents hold the decoder norms already."""
        return bool(getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False))

    def decoder_norms(self) -> PerLatent:
        """Return ‖W_dec,i‖; differentiable."""
        return self.sae.W_dec.norm(dim=-1)

    def effective_latents(
        self,
        latents: Latents,
        rows: slice | Int[Tensor, "row"] | Bool[Tensor, "point"] | None = None,
    ) -> Float[Tensor, "row d_sae"] | SparseLatents:
        """Return z_i·‖W_dec,i‖ of all points or of the selected `rows`; sparse latents stay so.

        Every separability figure is taken of them: scaling a latent up and its decoder row down
        leaves them unchanged. SAEs with `rescale_acts_by_decoder_norm` hold such latents already.

        Differentiable in the latents, and in the decoder unless its rows keep their norm: that
        gradient lies along the rows, where `remove_parallel_gradient_` takes it out again.
        """
        norms = None if self.rescales_by_norm else self.decoder_norms()
        if norms is not None and self.has_constant_decoder_norm:
            norms = norms.detach()
        chosen = slice(None) if rows is None else rows
        if not isinstance(latents, SparseLatents):
            return latents[chosen] if norms is None else latents[chosen] * norms
        values, indices = latents.values[chosen], latents.indices[chosen]
        if norms is not None:
            pairs = Pairs.of_rows(indices, latents.d_sae)
            values = values * gather_scalars(norms, pairs).view_as(values)
        return SparseLatents(values, indices, latents.d_sae)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Rescale the decoder rows to the norm they had when the model was made (else to 1)."""
        target = self.decoder_norm_target if self.has_constant_decoder_norm else 1.0
        weight = local(self.sae.W_dec)
        weight.mul_(target / one_for_zero(weight.norm(dim=1, keepdim=True)))

    @torch.no_grad()
    def remove_parallel_gradient_(self) -> None:
        """Project the decoder's gradient, where there is one, orthogonal to its rows.

        Without it the optimizer spends its moments on a direction that the rescaling undoes.
        """
        if self.sae.W_dec.grad is None:
            return
        weight, grad = local(self.sae.W_dec), local(self.sae.W_dec.grad)
        squared = one_for_zero(weight.square().sum(dim=1, keepdim=True))
        along = (grad * weight).sum(dim=1, keepdim=True) / squared
        grad.addcmul_(along, weight, value=-1)


def _note_constant_norm(model: DecoderNorms, _: Any = None) -> None:
    """Have the host know, which would wait for the device each time it asked."""
    model.has_constant_decoder_norm = bool(model.decoder_norm_target > 0)


def one_for_zero(lengths: Tensor) -> Tensor:
    """Return lengths that can be divided by."""
    return torch.where(lengths > 0, lengths, 1.0)


def local(tensor: Any) -> Tensor:
    """Return the part of a tensor that this process holds: all, unless devices share it."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def constant_norm(weight: Tensor) -> Tensor:
    """Return the common norm of the rows, or 0 where they differ."""
    norms = weight.detach().norm(dim=1)
    mean = norms.mean()
    if not (mean > 0 and bool((norms - mean).abs().max() <= _TOLERANCE * mean)):
        return torch.zeros(())
    # a norm of 1 up to storage precision means 1
    return torch.ones(()) if bool((mean - 1).abs() <= _TOLERANCE) else mean.cpu().clone()
