"""LMDataModule: a language model behind a data module, loaded when something first needs it."""

import time
from functools import cached_property

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from saerepgeo.data.cache import LMSettings, cached_tensors, model_fingerprint, tokens_key
from saerepgeo.lm.frozen import FrozenLM, check_hook_name
from saerepgeo.lm.precision import autocast_dtype
from saerepgeo.lm.sources import model_facts
from saerepgeo.lm.tokenizer import LMTokenizer
from saerepgeo.types import ModelFacts


class LMDataModule(LightningDataModule):
    """What the hyperparameters `lm`, `hook_name`, `lm_dtype` and `center_residuals` name.

    `n_lm_tokens` went through the model as contexts so far, in `lm_seconds`.
    """

    n_lm_tokens, lm_seconds = 0, 0.0

    @cached_property
    def lm(self) -> FrozenLM:
        """The language model; loaded when first needed, never if all activations are cached."""
        return self._load_lm(self.hparams["hook_name"])

    def _load_lm(self, hook_name: str) -> FrozenLM:
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
        """What residuals depend on besides the text."""
        h = self.hparams
        dtype = str(autocast_dtype(h["lm_dtype"], self._device))
        return LMSettings(h["lm"], h["hook_name"], dtype, h["center_residuals"])

    @cached_property
    def _fingerprint(self) -> str:
        return model_fingerprint(self.hparams["lm"])

    def points_of(self, tokens: Tensor, keep: bool) -> Tensor:
        """Return the real points `[point, d_model]` of contexts; keep them on disk if `keep`.

        Kept or not, their dtype is that in which the model multiplies its matrices.
        """

        def compute() -> dict[str, Tensor]:
            lm, start = self.lm, time.perf_counter()
            points = lm.real_points(tokens).to(lm.autocast_dtype or torch.float32)
            self.lm_seconds += time.perf_counter() - start
            self.n_lm_tokens += tokens.numel()
            return {"points": points.cpu() if keep else points}

        if not keep:
            return compute()["points"]
        key = tokens_key("background points/1", self._fingerprint, self.lm_settings, tokens)
        return cached_tensors(key, compute)["points"]

    def prepare_data(self) -> None:
        """Check what can be checked cheaply, in one process, before anything slow starts."""
        check_hook_name(self.hparams["lm"], self.hparams["hook_name"])

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1
