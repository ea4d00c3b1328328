"""FrozenLM: tokens → residuals at its hooks, and no further through the model than that."""

import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from saerepgeo.lm.allocation import keep_freed_memory
from saerepgeo.lm.hooks import (
    NEAR_THE_SAME,
    RESIDUAL_HOOK,
    check_hook,
    check_hook_name,
    hooked,
    read_hooks,
)
from saerepgeo.lm.precision import Dtype, autocast_dtype, cast_norms_once, hold_weights
from saerepgeo.lm.sources import load_model
from saerepgeo.lm.tokenizer import LMTokenizer
from saerepgeo.types import Float, Int

TOKENS_PER_PASS = 2048
"""On a CPU: what the layers hand on then stays in the processor's cache."""

KEPT_BYTES = 2**29
"""Of losses with log-probabilities kept in memory, at most."""


class _HookReachedError(Exception):
    """Raised by the deepest hook to leave the forward pass: what follows is not needed."""


class FrozenLM:
    """A language model without gradients that gives the residuals `[…, d_model]` at its hooks.

    It has one hook, or several that one pass reads; where a method takes a `hook_name`, None is
    the first. TransformerLens names the hooks and is the reference. Residual-stream hooks
    (`hook_resid_pre`, `hook_resid_post`) are read from the plain `transformers` modules, which hold
    the same parameters and run up to 1.4x faster than the hooked ones; on construction the two are
    compared on a short input, and the hooked model serves each hook at which they differ.

    `find_sink_norm` gives, by hook, the norm above which a position is an attention sink; without
    it none is.
    """

    find_sink_norm: Callable[[str], float] | None = None
    kept_losses: dict[Any, tuple[Tensor, Tensor]] | None = None
    """If a dictionary, losses of the model as it is, by tokens: for several SAEs and hooks."""

    def __init__(
        self,
        model: Any,
        tokenizer: LMTokenizer,
        name: str,
        hook_name: str | Sequence[str],
        dtype: Dtype = "auto",
        device: torch.device | str = "cpu",
        center_residuals: bool = False,
    ) -> None:
        self.name, self.tokenizer = name, tokenizer
        self.hook_names = (hook_name,) if isinstance(hook_name, str) else tuple(hook_name)
        self.hook_name = self.hook_names[0]
        self.device = torch.device(device)
        self.center_residuals = center_residuals
        self.autocast_dtype = autocast_dtype(dtype, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        model = model.to(self.device)
        tokenizer.check_fits(name, model.get_input_embeddings().num_embeddings)
        self._plain: Any = _twin(model)  # before booting, which rewires the modules in place
        self._bridge = hooked(model, tokenizer, name, self.device)
        components = self._bridge.adapter.component_mapping
        assert components is not None
        self._blocks: str = components["blocks"].name
        self.d_model: int = self._bridge.cfg.d_model
        self._d_vocab: int = self._bridge.cfg.d_vocab
        self._example = (torch.arange(8, device=self.device)[None] + 100) % self._d_vocab
        for each in self.hook_names:
            check_hook(self._bridge, name, each, self._example)
        self._layers = {each: self._plain_layer(each) for each in self.hook_names}
        layers = set(self._layers.values())
        if None not in layers:
            self._bridge = None  # which would hold in float32 what the plain model has in its dtype
        if layers != {None} and self.autocast_dtype is not None:
            hold_weights(self._plain, self.autocast_dtype)
            cast_norms_once(self._plain, self.autocast_dtype, lambda: self._logits(self._example))

    @classmethod
    def load(
        cls,
        name: str,
        hook_name: str | Sequence[str],
        dtype: Dtype = "auto",
        device: torch.device | str = "cpu",
        center_residuals: bool = False,
    ) -> "FrozenLM":
        """Load a model and hook it, e.g. at `blocks.10.hook_resid_post`, or at several such.

        `name` is a hub id, local Hugging Face folder, GGUF file, or `smollm2-135m`. `dtype` is
        float32, bfloat16 (autocast; the residual stream stays float32), or auto: bfloat16 where the
        device computes it natively. `center_residuals` subtracts each residual's mean over d_model,
        as TransformerLens' `center_writing_weights` does to a LayerNorm model.
        Raises ValueError on an unknown model or hook, a missing package, no access.
        """
        for each in [hook_name] if isinstance(hook_name, str) else hook_name:
            check_hook_name(name, each)
        tokenizer = LMTokenizer.load(name)
        return cls(load_model(name), tokenizer, name, hook_name, dtype, device, center_residuals)

    def at(self, hook_name: str) -> "FrozenLM":
        """Return this very model with another of its hooks as the first."""
        other = copy.copy(self)
        other.hook_name = self._own(hook_name)
        return other

    def residuals(
        self, tokens: Int[Tensor, "prompt position"], hook_name: str | None = None
    ) -> Tensor:
        """Return the residuals `[prompt, position, d_model]` (float32) at the hook.

        Pad on the right only: attention is causal, so padding changes no earlier position.
        """
        name = self._own(hook_name)
        return self.residuals_by_hook(tokens, [name])[name]

    @torch.no_grad()
    def residuals_by_hook(
        self, tokens: Int[Tensor, "prompt position"], hook_names: Iterable[str]
    ) -> dict[str, Tensor]:
        """Return, from one pass, what `residuals` gives at each of the hooks, bit for bit."""
        names, tokens = list(map(self._own, hook_names)), _sent(tokens, self.device)
        shape = *tokens.shape, self.d_model
        out = {name: torch.empty(shape, device=self.device) for name in names}
        if tokens.numel() == 0:
            return out
        on_cpu = self.device.type == "cpu"
        n_rows = max(1, TOKENS_PER_PASS // tokens.shape[1]) if on_cpu else len(tokens)
        for start in range(0, len(tokens), n_rows):
            rows = slice(start, start + n_rows)
            for name, found in self._pass(tokens[rows], names).items():
                out[name][rows] = found
        if self.center_residuals:
            return {name: found - found.mean(-1, keepdim=True) for name, found in out.items()}
        return out

    def real_points(
        self, tokens: Int[Tensor, "prompt position"], hook_name: str | None = None
    ) -> Float[Tensor, "point d_model"]:
        """Return the residuals of the positions that are neither special nor attention sinks."""
        residuals = self.residuals(tokens, hook_name)
        return residuals[self.is_point(tokens, residuals, hook_name)]

    def is_point(self, tokens: Tensor, residuals: Tensor, hook_name: str | None = None) -> Tensor:
        """Return where `tokens` are neither special nor, by their `residuals`, attention sinks."""
        is_real = _sent(self.tokenizer.is_real(tokens), residuals.device)
        name, find = self._own(hook_name), self.find_sink_norm
        is_sink = residuals.norm(dim=-1) > (math.inf if find is None else find(name))
        return is_real & ~is_sink

    def _own(self, hook_name: str | None) -> str:
        """Return the name of a hook that this model has; None is the first."""
        if (name := hook_name or self.hook_name) not in self.hook_names:
            names = ", ".join(self.hook_names)
            raise ValueError(f"`hook_name` must be one of those loaded, {names}, got `{name}`")
        return name

    @torch.no_grad()
    def token_losses(
        self,
        tokens: Int[Tensor, "prompt position"],
        splice: Callable[[Tensor], Tensor] = lambda residuals: residuals,
        hook_name: str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return next-token cross entropies `[prompt, position − 1]` in nats and the log-probs.

        `splice` maps the residuals at the hook to what shall stand in their place.
        """
        tokens = tokens.to(self.device)
        log_probs = self._spliced(tokens, splice, self._own(hook_name)).float().log_softmax(-1)
        return -log_probs[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0], log_probs

    def clean_losses(self, tokens: Int[Tensor, "prompt position"]) -> tuple[Tensor, Tensor]:
        """Return `token_losses` of the model as it is; those in `kept_losses` are kept there."""
        if self.kept_losses is None:
            return self.token_losses(tokens)
        # the hooked model, where it serves a hook, rounds otherwise
        key = self._layers[self.hook_name] is None, *tokens.shape, tokens.cpu().numpy().tobytes()
        if key not in self.kept_losses:
            found = self.token_losses(tokens)
            n_bytes = sum(
                x.nbytes for of_one in (*self.kept_losses.values(), found) for x in of_one
            )
            if n_bytes > KEPT_BYTES:
                return found
            self.kept_losses[key] = found
        return self.kept_losses[key]

    def _spliced(
        self, tokens: Tensor, splice: Callable[[Tensor], Tensor], hook_name: str
    ) -> Tensor:
        if not tokens.numel():  # no model runs on none, but `splice` may be of all processes
            splice(torch.zeros(*tokens.shape, self.d_model, device=self.device))
            return torch.zeros(*tokens.shape, self._d_vocab, device=self.device)
        if (layer := self._layers[hook_name]) is not None:
            with self._at_hook(layer, splice):
                return self._logits(tokens)

        def replace(residuals: Tensor, hook: Any) -> Tensor:
            return splice(residuals).to(residuals.dtype)

        with self._autocast():
            return self._bridge.run_with_hooks(tokens, fwd_hooks=[(hook_name, replace)])

    def _logits(self, tokens: Tensor) -> Tensor:
        with self._autocast():
            return self._plain(tokens, use_cache=False).logits

    def _pass(self, tokens: Tensor, hook_names: Sequence[str]) -> dict[str, Tensor]:
        layers = {name: self._layers[name] for name in hook_names}
        plain = {name: layer for name, layer in layers.items() if layer is not None}
        others = [name for name, layer in layers.items() if layer is None]
        with self._autocast():
            found = read_hooks(self._bridge, others, tokens) if others else {}
            by_layer = self._plain_residuals(tokens, plain.values())
        return found | {name: by_layer[layer] for name, layer in plain.items()}

    def _autocast(self) -> torch.autocast:
        dtype = self.autocast_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _plain_residuals(self, tokens: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        caught: dict[int, Tensor] = {}
        last = max(layers, default=None)

        def catch(layer: int, residuals: Tensor) -> Tensor:
            caught[layer] = residuals
            if layer == last:
                raise _HookReachedError
            return residuals

        with suppress(_HookReachedError), ExitStack() as hooks:
            for layer in set(layers):
                hooks.enter_context(self._at_hook(layer, partial(catch, layer)))
            if last is not None:
                self._plain.base_model(tokens, use_cache=False)
        return caught

    @contextmanager
    def _at_hook(self, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside, what `change` makes of the residuals that `layer` gives stands in their place."""

        def replace(_: nn.Module, __: Any, output: Any) -> Any:
            old, *rest = output if isinstance(output, tuple) else (output,)
            new = change(old).to(old.dtype)
            return (new, *rest) if isinstance(output, tuple) else new

        handle = self._block(layer).register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    def _block(self, layer: int) -> Any:
        return self._plain.get_submodule(f"{self._blocks}.{layer}")

    @torch.no_grad()
    def _plain_layer(self, hook_name: str) -> int | None:
        """Return the layer whose output the hook reads; None where only the bridge has it."""
        match = RESIDUAL_HOOK.fullmatch(hook_name)
        layer = int(match[1]) - (match[2] == "pre") if match else -1
        if layer < 0:
            return None
        plain = self._plain_residuals(self._example, [layer])[layer]
        bridged = read_hooks(self._bridge, [hook_name], self._example)[hook_name]
        return layer if (plain - bridged).norm() <= NEAR_THE_SAME * bridged.norm() else None


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on `device`; the host, where it comes from there, does not wait."""
    return tensor.to(device, non_blocking=tensor.device.type == "cpu")


def _twin(model: nn.Module) -> nn.Module:
    """Return a copy of the modules that shares every parameter and buffer with `model`."""
    shared = {id(t): t for t in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)
