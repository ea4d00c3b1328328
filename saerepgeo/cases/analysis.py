"""What cases 1 and 2 share: SAEs that are looked at and not trained, and rows of the long table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from saerepgeo.cases.spaces import Space, random_model, sae_name
from saerepgeo.metrics.wrappers import Figure
from saerepgeo.report.results import result_row
from saerepgeo.sae.agreement import check_agreement
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import Bool, Float, generator_for, to_dense

NOTHING_TO_TRAIN = "the analyses train nothing: run `test`, or `fit` with configs/case3.yaml"


class AnalysisModule(LightningModule):
    """Spaces × metrics. A batch of `test` is one part of the work on one concept.

    The data module gives each concept once for every one of `parts`, which a subclass names: a
    space, or a condition. Processes share the concepts.

    Args:
        sae: the SAE to look at, or several.
        name: the model in tables and file names; by default its language model and layer.
        n_random: random dictionaries that every SAE is set against.
        seed: of everything random here.
    """

    parts: Sequence[str]

    def __init__(
        self,
        sae: SAESource | list[SAESource],
        name: str | None = None,
        n_random: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.sources = [sae] if isinstance(sae, SAESource) else list(sae)
        if not self.sources:
            raise ValueError("`sae` must name an SAE or a list of them, got none")
        if n_random < 0:
            raise ValueError(f"`n_random` must be ≥ 0, got {n_random}")
        for source in self.sources:
            source.check()
        self.sae_names = [sae_name(source, self.sources) for source in self.sources]
        if len(set(self.sae_names)) < len(self.sae_names):
            raise ValueError(f"`sae` must name different SAEs, got {', '.join(self.sae_names)}")
        self.n_random, self.seed, self._name = n_random, seed, name
        self._kept: dict[Any, Any] = {}
        self._concept: str | None = None

    def setup(self, stage: str) -> None:
        """Refuse an SAE that does not belong to the data, before any weights are read."""
        data = {name: value for name, value in self._data.items() if name != "context_size"}
        facts = self.trainer.datamodule.model_facts  # type: ignore[attr-defined]
        for source in self.sources:
            for remark in check_agreement(source.read_config(), data, facts):
                rank_zero_info(remark)

    def configure_model(self) -> None:
        """Load the SAEs."""
        if hasattr(self, "saes"):
            return
        built = [source.build(self.seed).eval().requires_grad_(False) for source in self.sources]
        self.saes = nn.ModuleList(built)

    @property
    def name(self) -> str:
        """The model in tables and file names."""
        return self._name or model_name(self._data["lm"], self._data["hook_name"])

    @torch.no_grad()
    def raw_latents(
        self,
        space: Space,
        residuals: Float[Tensor, "prompt position d_model"],
        chosen: Bool[Tensor, "prompt position"],
    ) -> Float[Tensor, "point d_sae"]:
        """Return the latents of the chosen positions as the SAE gives them."""
        return to_dense(self._model(space, residuals, chosen).encode_prompts(residuals, chosen)[0])

    @torch.no_grad()
    def effective_latents(
        self,
        space: Space,
        residuals: Float[Tensor, "prompt position d_model"],
        chosen: Bool[Tensor, "prompt position"],
    ) -> Float[Tensor, "point d_sae"]:
        """Return the latents of the chosen positions times their decoder norms."""
        model = self._model(space, residuals, chosen)
        latents = model.encode_prompts(residuals, chosen).latents
        return to_dense(model.effective_latents(latents)).float()

    def rows(
        self, concept: str, space: Space, protocol: str, figures: Mapping[str, Figure], at: str = ""
    ) -> list[dict[str, Any]]:
        """Return the figures of a space as rows of the long table; `at` names a condition."""
        about = {
            "model": self.name,
            "hook": self._data["hook_name"],
            "sae": "" if space.kind == "residuals" else self.sae_names[space.sae],
            "concept": concept,
            "space": f"{space.name}+{at}" if at else space.name,
            "protocol": protocol,
            "seed": self.seed,
        }
        return [row for name, figure in figures.items() for row in result_row(about, name, figure)]

    def kept(self, concept: str, key: Any, make: Any) -> Any:
        """Return what `make` gave when `key` was first asked for, while the concept is the same."""
        if concept != self._concept:
            self._kept, self._concept = {}, concept
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def configure_optimizers(self) -> Any:
        """Refuse to train.

        Raises:
            ValueError: always.
        """
        raise ValueError(NOTHING_TO_TRAIN)

    def _model(self, space: Space, residuals: Tensor, chosen: Tensor) -> SAEModel:
        sae: Any = self.saes[space.sae]
        if space.kind == "latents":
            return sae

        def make() -> SAEModel:
            # the first draw is that of a single one, however many there are
            numbers = (space.draw,) if space.draw else ()
            generator = generator_for(self.seed, "random-dictionary", *numbers)
            return random_model(sae, residuals, chosen, generator)

        made: SAEModel = self.kept(self._concept or "", ("random", space), make)
        return made

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
