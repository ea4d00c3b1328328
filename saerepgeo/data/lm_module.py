"""LMDataModule: a language model behind a data module, loaded when something first needs it."""

from functools import cached_property

import torch
from lightning.pytorch import LightningDataModule

from saerepgeo.data.cache import LMSettings
from saerepgeo.lm.frozen import FrozenLM, check_hook_name
from saerepgeo.lm.precision import autocast_dtype
from saerepgeo.lm.sources import model_facts
from saerepgeo.lm.tokenizer import LMTokenizer
from saerepgeo.types import ModelFacts


class LMDataModule(LightningDataModule):
    """What the hyperparameters `lm`, `hook_name`, `lm_dtype` and `center_residuals` name."""

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
