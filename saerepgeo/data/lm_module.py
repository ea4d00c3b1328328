"""LMDataModule: a language model behind a data module, loaded when something first needs it."""

import json
import time
from collections import Counter
from functools import cache, cached_property, partial
from itertools import islice
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from saerepgeo.data.cache import LMSettings, cached_tensors, library_versions, tokens_key
from saerepgeo.data.contexts import Contexts, StoredContexts, open_contexts
from saerepgeo.data.statistics import PointsByHook
from saerepgeo.data.text import open_text
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.hooks import check_hook_name
from saerepgeo.lm.precision import autocast_dtype
from saerepgeo.lm.sinks import sink_norm
from saerepgeo.lm.sources import model_facts, model_fingerprint
from saerepgeo.lm.sums import once
from saerepgeo.lm.tokenizer import LMTokenizer
from saerepgeo.types import ModelFacts

SAMPLE_SHAPE = 256, 64
"""Contexts and positions, at most, from which a model's attention sinks are known."""


class LMDataModule(LightningDataModule):
    """What the hyperparameters `lm`, `hook_name`, `lm_dtype`, `center_residuals`, `text` … name.

    `n_lm_tokens` went through the model as contexts so far, in `lm_seconds`. Of `n_positions` of
    text `n_sinks`, by hook, were left out as attention sinks.
    """

    n_lm_tokens, lm_seconds, n_positions = 0, 0.0, 0

    def __init__(self) -> None:
        super().__init__()
        self.n_sinks: Counter[str] = Counter()
        self._contexts: dict[str, StoredContexts] = {}

    @property
    def hook_names(self) -> tuple[str, ...]:
        """The hooks that one pass of the model reads."""
        given = self.hparams["hook_name"]
        return (given,) if isinstance(given, str) else tuple(given)

    @cached_property
    def lm(self) -> FrozenLM:
        """The language model; loaded when first needed, never if all activations are cached."""
        lm = self._load_lm(self.hook_names)
        lm.find_sink_norm = lambda hook_name: self.sink_norms[hook_name]
        return lm

    def _load_lm(self, hook_name: str | tuple[str, ...]) -> FrozenLM:
        h = self.hparams
        return FrozenLM.load(h["lm"], hook_name, h["lm_dtype"], self._device, h["center_residuals"])

    @cached_property
    def tokenizer(self) -> LMTokenizer:
        """The model's tokenizer; loaded without the model."""
        return LMTokenizer.load(self.hparams["lm"])

    @cached_property
    def model_facts(self) -> ModelFacts:
        """Width and normalization of the language model, from its configuration alone."""
        return model_facts(self.hparams["lm"])

    @property
    def lm_settings(self) -> LMSettings:
        """What residuals depend on besides the text; of several hooks at the first."""
        h, device = self.hparams, self._device
        computed = str(autocast_dtype(h["lm_dtype"], device)), h["center_residuals"], device.type
        return LMSettings(h["lm"], self.hook_names[0], *computed, self._versions)

    @cached_property
    def _versions(self) -> str:
        return library_versions()

    @cached_property
    def _fingerprint(self) -> str:
        return model_fingerprint(self.hparams["lm"])

    @cached_property
    def sink_norms(self) -> dict[str, float]:
        """By hook the norm above which a position is an attention sink, from shipped text.

        It is the model's and the hook's: no verdict depends on what else is read.
        """

        @cache
        def norms() -> dict[str, Tensor]:
            tokens = sample_contexts(self.tokenizer, self.model_facts.n_positions)
            parts = [self.lm.residuals_by_hook(x, self.hook_names) for x in tokens.split(32)]
            is_real = self.tokenizer.is_real(tokens)
            return {
                hook: torch.cat([part[hook] for part in parts]).norm(dim=-1)[is_real]
                for hook in self.hook_names
            }

        def compute(hook: str) -> dict[str, Tensor]:
            return {"sink_norm": torch.tensor([sink_norm(norms()[hook])], dtype=torch.float64)}

        key, found = {"kind": "sink norm/1", "model": self._fingerprint}, {}
        for hook in self.hook_names:
            settings = self.lm_settings._replace(hook_name=hook)._asdict()
            found[hook] = float(cached_tensors(key | settings, partial(compute, hook))["sink_norm"])
        return found

    def points_of(self, tokens: Tensor, keep: bool) -> PointsByHook:
        """Return by hook the real points `[point, d_model]` of contexts; on disk too if `keep`.

        One pass reads all hooks; what is on disk is not read again. Kept or not, their dtype is
        that in which the model multiplies its matrices.
        """
        found: PointsByHook = {}

        @cache
        def residuals() -> dict[str, Tensor]:
            lm, start = self.lm, time.perf_counter()
            read = lm.residuals_by_hook(tokens, [x for x in self.hook_names if x not in found])
            self.lm_seconds += time.perf_counter() - start
            self.n_lm_tokens += tokens.numel()
            return read

        def compute(hook: str) -> dict[str, Tensor]:
            read, dtype = residuals()[hook], self.lm.autocast_dtype or torch.float32
            points = read[self.lm.is_point(tokens, read, hook)].to(dtype)
            return {"points": points.cpu() if keep else points}

        n_real = int(self.tokenizer.is_real(tokens).sum())
        self.n_positions += n_real
        for hook in self.hook_names:
            settings, own = self.lm_settings._replace(hook_name=hook), partial(compute, hook)
            key = tokens_key("background points/2", self._fingerprint, settings, tokens)
            found[hook] = cached_tensors(key, own, keep)["points"]
            self.n_sinks[hook] += n_real - len(found[hook])
        return found

    def contexts(self, split: Literal["train", "heldout"]) -> Contexts:
        """Return the contexts of the background text to train on, or of what is held out."""
        if split in self._contexts:
            return self._contexts[split]
        h, apart = self.hparams, self.hparams["heldout_text"]
        text = open_text(h["text"] if apart is None or split == "train" else apart)
        part, fraction = split if apart is None else "all", h["heldout_text_fraction"]
        found = open_contexts(text, self.tokenizer, h["context_size"], part, fraction)
        if isinstance(found, StoredContexts):  # the others have a position of their own
            self._contexts[split] = found
        return found

    def heldout_contexts(self) -> Tensor:
        """Return tokens `[context, position]` of held-out text, for losses of the model itself."""
        contexts, wanted = self.contexts("heldout"), self.hparams["validation_contexts"]
        return contexts.read(range(min(wanted, contexts.n_contexts or wanted)))

    def prepare_data(self) -> None:
        """Check the model in one process, before anything slow starts or is written.

        What only its weights tell is checked once for all, and the model stays loaded.
        """
        h, size = self.hparams, self.model_facts.n_positions
        for hook in self.hook_names:
            check_hook_name(h["lm"], hook)
        if size is not None and h.get("context_size", 0) > size:
            raise ValueError(
                f"`context_size` must be at most {size}, the positions of model `{h['lm']}`, got "
                f"{h['context_size']}"
            )
        _ = self.tokenizer
        for hook in self.hook_names:
            once(json.dumps(["sound model/1", self._fingerprint, hook]), lambda: self.lm)

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def sample_contexts(tokenizer: LMTokenizer, n_positions: int | None) -> Tensor:
    """Return contexts `[context, position]` of every 50th document of the shipped text."""
    size = min(n_positions or SAMPLE_SHAPE[1], SAMPLE_SHAPE[1])
    text = "\n\n".join(islice(open_text("sample").documents(), 0, None, 50))
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    tokens = torch.tensor(tokenizer.tokenizer(text, **options)["input_ids"])
    n_contexts = min(SAMPLE_SHAPE[0], len(tokens) // (size - 1))
    rows = tokens[: n_contexts * (size - 1)].view(n_contexts, size - 1)
    return torch.nn.functional.pad(rows, (1, 0), value=tokenizer.bos_id)
