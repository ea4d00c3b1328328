"""FrozenLM: tokens → residuals at one hook, and no further through the model than that."""

import copy
import difflib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from saerepgeo.lm.allocation import keep_freed_memory
from saerepgeo.lm.precision import Dtype, autocast_dtype, cast_norms_once, hold_weights
from saerepgeo.lm.sources import load_config, load_model
from saerepgeo.lm.tokenizer import LMTokenizer
from saerepgeo.types import Bool, Float, Int

RESIDUAL_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
SINK_RATIO = 10.0
"""A position whose norm exceeds this many times its prompt batch's median is an attention sink."""
TOKENS_PER_PASS = 2048
"""On a CPU: what the layers hand on then stays in the processor's cache."""


class _HookReached(Exception):  # noqa: N818  (control flow, not an error)
    """Raised by the hook to leave the forward pass: what follows is not needed."""


class FrozenLM:
    """A language model without gradients that gives the residuals at one hook.

    TransformerLens names the hook and is the reference. Residual-stream hooks (`hook_resid_pre`,
    `hook_resid_post`) are read from the plain `transformers` modules, which hold the same
    parameters and run up to 1.4x faster than the hooked ones; on construction the two are
    compared on a short input, and the hooked model serves whenever they differ.

    Attributes:
        name: what it was loaded by.
        hook_name: TransformerLens name of the hook.
        tokenizer: text ↔ tokens.
        d_model: width of the residuals.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: LMTokenizer,
        name: str,
        hook_name: str,
        dtype: Dtype = "auto",
        device: torch.device | str = "cpu",
        center_residuals: bool = False,
    ) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        self.name, self.hook_name, self.tokenizer = name, hook_name, tokenizer
        self.device = torch.device(device)
        self.center_residuals = center_residuals
        self.autocast_dtype = autocast_dtype(dtype, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        model = model.to(self.device)
        self._plain: Any = _twin(model)  # before booting, which rewires the modules in place
        self._bridge = TransformerBridge.boot_transformers(
            name, hf_model=model, tokenizer=tokenizer.tokenizer, device=self.device
        )
        self.d_model: int = self._bridge.cfg.d_model
        self._layer = self._check_hook(hook_name)
        if self._layer is not None and not self._agrees_with_bridge():
            self._layer = None
        if self._layer is not None and self.autocast_dtype is not None:
            hold_weights(self._plain, self.autocast_dtype)
            cast_norms_once(self._plain, self.autocast_dtype, self._example_logits)

    @classmethod
    def load(
        cls,
        name: str,
        hook_name: str,
        dtype: Dtype = "auto",
        device: torch.device | str = "cpu",
        center_residuals: bool = False,
    ) -> "FrozenLM":
        """Load the model `name` and hook it at `hook_name`.

        Args:
            name: hub id, local Hugging Face folder, GGUF file, or `smollm2-135m`.
            hook_name: e.g. `blocks.10.hook_resid_post`.
            dtype: `float32`, `bfloat16` (autocast; the residual stream stays float32), or `auto`:
                bfloat16 where the device computes it natively.
            device: where the model runs.
            center_residuals: subtract each residual's mean over d_model, which is what
                TransformerLens' `center_writing_weights` does to a LayerNorm model.

        Raises:
            ValueError: unknown model or hook, missing package, no access.
        """
        check_hook_name(name, hook_name)
        tokenizer = LMTokenizer.load(name)
        return cls(load_model(name), tokenizer, name, hook_name, dtype, device, center_residuals)

    @torch.no_grad()
    def residuals(self, tokens: Int[Tensor, "prompt position"]) -> Tensor:
        """Return the residuals `[prompt, position, d_model]` (float32) at the hook.

        Pad on the right only: attention is causal, so padding changes no earlier position.
        """
        tokens = tokens.to(self.device)
        out = torch.empty(*tokens.shape, self.d_model, device=self.device)
        if tokens.numel() == 0:
            return out
        on_cpu = self.device.type == "cpu"
        n_rows = max(1, TOKENS_PER_PASS // tokens.shape[1]) if on_cpu else len(tokens)
        for start in range(0, len(tokens), n_rows):
            rows = slice(start, start + n_rows)
            out[rows] = self._pass(tokens[rows])
        return out - out.mean(-1, keepdim=True) if self.center_residuals else out

    @torch.no_grad()
    def token_losses(
        self,
        tokens: Int[Tensor, "prompt position"],
        splice: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return next-token cross entropies `[prompt, position − 1]` in nats and the log-probs.

        Args:
            tokens: as for `residuals`.
            splice: maps the residuals at the hook to what shall stand in their place.

        Raises:
            ValueError: the hook is not on the residual stream.
        """
        if self._layer is None:
            raise ValueError(
                f"splicing needs a residual-stream hook (hook_resid_pre/post), got "
                f"`{self.hook_name}`; choose one of those"
            )
        tokens = tokens.to(self.device)
        with self._autocast(), self._spliced(splice):
            logits = self._plain(tokens, use_cache=False).logits
        log_probs = logits.float().log_softmax(-1)
        losses = -log_probs[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
        return losses, log_probs

    def real_points(self, tokens: Int[Tensor, "prompt position"]) -> Float[Tensor, "point d_model"]:
        """Return the residuals of the positions that are neither special nor attention sinks."""
        residuals = self.residuals(tokens)
        is_real = self.tokenizer.is_real(tokens).to(residuals.device)
        return residuals[is_real & ~is_sink(residuals, is_real)]

    @contextmanager
    def _spliced(self, splice: Callable[[Tensor], Tensor] | None) -> Iterator[None]:
        if splice is None:
            yield
            return

        def replace(_: nn.Module, __: Any, output: Any) -> Any:
            old = output[0] if isinstance(output, tuple) else output
            new = splice(old).to(old.dtype)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        handle = self._block(self._layer).register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    def _autocast(self) -> torch.autocast:
        dtype = self.autocast_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _block(self, layer: int | None) -> Any:
        """Return the module whose output is the residual at the hook (−1: the embeddings' side)."""
        components = self._bridge.adapter.component_mapping
        assert components is not None
        return self._plain.get_submodule(f"{components['blocks'].name}.{layer}")

    def _pass(self, tokens: Tensor) -> Tensor:
        with self._autocast():
            if self._layer is None:
                return self._bridge_residuals(tokens)
            return self._plain_residuals(tokens)

    def _plain_residuals(self, tokens: Tensor) -> Tensor:
        caught: list[Tensor] = []

        def catch(_: nn.Module, __: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)
            raise _HookReached

        handle = self._block(self._layer).register_forward_hook(catch)
        try:
            self._plain.base_model(tokens, use_cache=False)
        except _HookReached:
            pass
        finally:
            handle.remove()
        return caught[0]

    def _bridge_residuals(self, tokens: Tensor) -> Tensor:
        match = re.match(r"blocks\.(\d+)\.", self.hook_name)
        stop = int(match[1]) + 1 if match else None
        _, cache = self._bridge.run_with_cache(
            tokens, names_filter=[self.hook_name], stop_at_layer=stop, return_type=None
        )
        return cache[self.hook_name]

    def _agrees_with_bridge(self) -> bool:
        tokens = self._example_tokens()
        with torch.no_grad():
            plain, bridged = self._plain_residuals(tokens), self._bridge_residuals(tokens)
        return bool((plain - bridged).norm() <= 1e-4 * bridged.norm())

    def _example_tokens(self) -> Tensor:
        return (torch.arange(8, device=self.device)[None] + 100) % self._bridge.cfg.d_vocab

    def _example_logits(self) -> Tensor:
        with self._autocast():
            return self._plain(self._example_tokens(), use_cache=False).logits

    def _check_hook(self, hook_name: str) -> int | None:
        """Return the layer whose output the hook reads; None where only the bridge has it."""
        if hook_name not in self._bridge.hook_dict:
            near = difflib.get_close_matches(hook_name, list(self._bridge.hook_dict), n=3)
            raise ValueError(
                f"`hook_name` must be a TransformerLens hook of `{self.name}`, got `{hook_name}`; "
                f"near it: {', '.join(near) or 'none, see TransformerBridge.hook_dict'}"
            )
        match = RESIDUAL_HOOK.fullmatch(hook_name)
        if match is None:
            return None
        layer = int(match[1]) - (match[2] == "pre")
        return layer if layer >= 0 else None


def is_sink(
    residuals: Float[Tensor, "prompt position d_model"],
    is_real: Bool[Tensor, "prompt position"],
) -> Bool[Tensor, "prompt position"]:
    """Return where a residual is so large that the position serves as an attention sink.

    ‖x‖ > 10 · median of ‖x‖ over real positions; false everywhere where none are real.
    """
    norms = residuals.norm(dim=-1)
    if not bool(is_real.any()):
        return torch.zeros_like(is_real)
    return norms > SINK_RATIO * norms[is_real].median()


def check_hook_name(name: str, hook_name: str) -> None:
    """Check, from the model's configuration alone, that `hook_name` names an existing layer.

    Raises:
        ValueError: unknown model, or a layer that the model has not got.
    """
    config = load_config(name)
    match = re.match(r"blocks\.(\d+)\.", hook_name)
    n_layers = getattr(config, "num_hidden_layers", None)
    if match and n_layers is not None and int(match[1]) >= n_layers:
        raise ValueError(
            f"`hook_name` must name one of the layers 0 to {n_layers - 1} of `{name}`, "
            f"got `{hook_name}`"
        )


def _twin(model: nn.Module) -> nn.Module:
    """Return a copy of the modules that shares every parameter and buffer with `model`."""
    shared = {id(t): t for t in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)
