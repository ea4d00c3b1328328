"""What the analyses of cases 1 and 2 share: an SAE, its random baseline, and the model's name."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from saerepgeo.geometry.dictionaries import random_dictionary
from saerepgeo.sae.agreement import check_agreement
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import Bool, Float, generator_for, to_dense

__all__ = ["AnalysisModule", "Stage", "model_name", "random_model"]

NOTHING_TO_TRAIN = "the analyses train nothing: run `test`, or `fit` with configs/case3.yaml"


class Stage(NamedTuple):
    """How far the work on a concept is."""

    what: str
    done: int
    n_steps: int


class AnalysisModule(LightningModule):
    """An SAE that is looked at and not trained; subclasses say what at, in `test_step`.

    A callback with a method `on_analysis_step(trainer, stage)` hears of each draw within a concept.

    Args:
        sae: the SAE to look at.
        name: the model in tables and file names; by default its language model and layer.
        seed: of everything random here.
    """

    sae: SAEModel
    _stage = Stage("", 0, 0)

    def __init__(self, sae: SAESource, name: str | None = None, seed: int = 0) -> None:
        super().__init__()
        sae.check()
        self.source, self.seed = sae, seed
        self._name = name

    def setup(self, stage: str) -> None:
        """Refuse an SAE that does not belong to the data, before any weights are read."""
        data = {name: value for name, value in self._data.items() if name != "context_size"}
        facts = self.trainer.datamodule.model_facts  # type: ignore[attr-defined]
        for remark in check_agreement(self.source.read_config(), data, facts):
            rank_zero_info(remark)

    def configure_model(self) -> None:
        """Load the SAE."""
        if hasattr(self, "sae"):
            return
        self.sae = self.source.build(self.seed).eval().requires_grad_(False)

    @property
    def name(self) -> str:
        """The model in tables and file names."""
        return self._name or model_name(self._data["lm"], self._data["hook_name"])

    def effective_latents(
        self,
        sae: SAEModel,
        residuals: Float[Tensor, "prompt position d_model"],
        chosen: Bool[Tensor, "prompt position"],
    ) -> Float[Tensor, "point d_sae"]:
        """Return the latents of the chosen positions times their decoder norms."""
        latents = sae.encode_prompts(residuals, chosen).latents
        return to_dense(sae.effective_latents(latents)).float()

    def random_sae(
        self,
        residuals: Float[Tensor, "prompt position d_model"],
        chosen: Bool[Tensor, "prompt position"],
    ) -> SAEModel:
        """Return the random dictionary that findings on the chosen positions are set against."""
        generator = generator_for(self.seed, "random-dictionary")
        return random_model(self.sae, residuals, chosen, generator)

    def begin(self, what: str, n_steps: int) -> None:
        """Say that `n_steps` calls of `advance` follow, for the callbacks that show progress."""
        self._stage = Stage(what, 0, n_steps)
        self._tell()

    def advance(self) -> None:
        """Say that one of many draws is done; a callback may raise, to stop between two."""
        self._stage = self._stage._replace(done=self._stage.done + 1)
        self._tell()

    def _tell(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            listener = getattr(callback, "on_analysis_step", None)
            if listener is not None:
                listener(self.trainer, self._stage)

    def configure_optimizers(self) -> Any:
        """Refuse to train.

        Raises:
            ValueError: always.
        """
        raise ValueError(NOTHING_TO_TRAIN)

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule.hparams  # type: ignore[attr-defined]


def model_name(lm: str, hook_name: str) -> str:
    """Return what tables call the residuals of a hook.

    >>> model_name("EleutherAI/pythia-70m-deduped", "blocks.5.hook_resid_post")
    'pythia-70m-deduped Layer 5'
    >>> model_name("gpt2", "blocks.5.hook_mlp_out")
    'gpt2 blocks.5.hook_mlp_out'
    """
    parts = hook_name.split(".")
    is_plain = len(parts) == 3 and parts[2] == "hook_resid_post"
    name = Path(lm).name.removesuffix(".gguf")
    return f"{name} Layer {parts[1]}" if is_plain else f"{name} {hook_name}"


@torch.no_grad()
def random_model(
    model: SAEModel,
    residuals: Float[Tensor, "prompt position d_model"],
    chosen: Bool[Tensor, "prompt position"],
    generator: torch.Generator,
) -> SAEModel:
    """Return an SAE of the same shape, sparsity and input normalization with random directions.

    The chosen positions set the threshold of architectures without k (see `random_dictionary`).
    """
    sae_in, _ = model._normalize(residuals[chosen])
    l0 = None
    if model.reads_context:  # nothing for points alone
        found = model.encode_prompts(residuals, chosen).latents
        latents = to_dense(model.effective_latents(found))
        l0 = float((latents != 0).sum()) / len(latents)
    random = random_dictionary(model.sae, sae_in, generator, l0)
    is_scaled = model.normalization == "expected_average_only_in"
    made = type(model)(random, float(model.input_scale) if is_scaled else 1.0)
    return made.eval().requires_grad_(False)
