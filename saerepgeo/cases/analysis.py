"""What cases 1 and 2 share: points of a concept in spaces, and rows of the long table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from saerepgeo.bounds import Count, check_settings
from saerepgeo.cases.spaces import RESIDUALS, Space, random_model, sae_name
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics.wrappers import Figure
from saerepgeo.report.results import result_row
from saerepgeo.sae.agreement import check_agreement
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import (
    AnalysisBatch,
    Bool,
    ConceptActivations,
    Float,
    Int,
    generator_for,
    to_dense,
)


class AnalysisModule(LightningModule):
    """Spaces × metrics. A batch of `test` is one part of the work on one concept.

    The data module gives each concept once for every one of `parts`, which a subclass names: a
    space, or a condition. Processes share the concepts. Everything is computed in the dtype of the
    SAE's weights, whatever `trainer.precision`, which is that of training.
    """

    parts: Sequence[str]

    def __init__(
        self,
        sae: SAESource | list[SAESource],
        name: str | None = None,
        n_random: Count = 1,
        seed: Count = 0,
    ) -> None:
        check_settings(AnalysisModule, locals())
        super().__init__()
        self.sources = [sae] if isinstance(sae, SAESource) else list(sae)
        if not self.sources:
            raise ValueError("`sae` must name an SAE or a list of them, got none")
        for source in self.sources:
            source.check()
        self.sae_names = [sae_name(source, self.sources) for source in self.sources]
        if len(set(self.sae_names)) < len(self.sae_names):
            raise ValueError(f"`sae` must name different SAEs, got {', '.join(self.sae_names)}")
        self.n_random, self.seed, self._name = n_random, seed, name
        self._concept = ""
        self._kept: dict[Any, Any] = {}

    def check(self, stage: str) -> list[str]:
        """Refuse another stage, and an SAE that does not belong to the data, unread."""
        if getattr(stage, "value", stage) != "test":  # Lightning's is an enum
            self.configure_optimizers()
        data = {name: value for name, value in self._data.items() if name != "context_size"}
        facts = self.trainer.datamodule.model_facts  # type: ignore[attr-defined]
        found = [check_agreement(each.read_config(), data, facts) for each in self.sources]
        for source in self.sources:
            source.check_weights()
        return [remark for remarks in found for remark in remarks]

    def setup(self, stage: str) -> None:
        """Check, and say what was noticed."""
        for remark in self.check(stage):
            rank_zero_info(remark)

    def configure_model(self) -> None:
        """Load the SAEs."""
        if not hasattr(self, "saes"):
            built = (source.build(self.seed) for source in self.sources)
            self.saes = nn.ModuleList(sae.eval().requires_grad_(False) for sae in built)

    def on_test_batch_start(self, batch: AnalysisBatch, *_: Any) -> None:
        """Forget what was kept of another concept."""
        if batch.activations.concept != self._concept:
            self._concept, self._kept = batch.activations.concept, {}

    def kept(self, key: Any, make: Callable[..., Any], *args: Any) -> Any:
        """Return `make(*args)` as it was when `key` was first asked for of this concept."""
        if key not in self._kept:
            self._kept[key] = make(*args)
        return self._kept[key]

    @torch.no_grad()
    def points(
        self,
        space: Space,
        residuals: Float[Tensor, "prompt position d_model"],
        chosen: Bool[Tensor, "prompt position"],
        is_raw: bool = False,
    ) -> Float[Tensor, "point dim"]:
        """Return the chosen positions in a space; latents times their decoder norms, or raw."""
        if space == RESIDUALS:
            return residuals[chosen]
        model: Any = self.saes[space.sae]
        if space.kind == "random":
            # the first draw is that of a single one, however many there are
            numbers = (space.draw,) if space.draw else ()
            generator = generator_for(self.seed, "random-dictionary", *numbers)
            model = self.kept((space, "SAE"), random_model, model, residuals, chosen, generator)
        latents = model.encode_prompts(residuals, chosen).latents
        return to_dense(latents) if is_raw else to_dense(model.effective_latents(latents)).float()

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

    def configure_optimizers(self) -> Any:
        """Refuse to train with a ValueError."""
        raise ValueError("the analyses train nothing: run `test`, or `fit` with configs/case3.yaml")

    @property
    def name(self) -> str:
        """The model in tables and file names."""
        return self._name or model_name(self._data["lm"], self._data["hook_name"])

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule.hparams  # type: ignore[attr-defined]


class ConceptPoints(NamedTuple):
    """Which positions of a concept's prompts are points, in order of prompts."""

    chosen: Bool[Tensor, "prompt position"]
    labels: Int[Tensor, "point"]
    """Item at the last token of its mention, where the item itself is represented; elsewhere −1."""
    named: Int[Tensor, "point"]
    """Item that has been named by this position; −1 before the mention."""
    prompts: Int[Tensor, "point"]
    positions: Int[Tensor, "point"]
    n_merged: int
    """Real positions left out, since another prompt begins with the same tokens."""

    @classmethod
    def of(
        cls, batch: ConceptActivations, chosen: Bool[Tensor, "prompt position"]
    ) -> "ConceptPoints":
        """Return the chosen positions as points; of these, only the real ones have items."""
        is_real, chosen = batch.is_real.cpu(), chosen.cpu()
        prompts, positions = chosen.nonzero().T
        items, mentions = batch.labels.cpu()[prompts], batch.item_positions.cpu()[prompts]
        is_named = is_real[prompts, positions] & (positions >= mentions)
        named = torch.where(is_named, items, -1)
        labels = torch.where(positions == mentions, named, -1)
        n_merged = int((is_real & ~chosen).sum())
        chosen = chosen.to(batch.is_real.device)
        return cls(chosen, labels, named, prompts, positions, n_merged)

    @classmethod
    def distinct(cls, batch: ConceptActivations) -> "ConceptPoints":
        """Return the real positions that are points of their own.

        A causal model gives the same residual wherever the tokens up to a position are the same:
        such positions are one point, the first.
        """
        seen: set[tuple[int, ...]] = set()
        chosen, tokens = torch.zeros_like(batch.is_real, device="cpu"), batch.tokens.tolist()
        for prompt, position in batch.is_real.nonzero().tolist():
            prefix = tuple(tokens[prompt][: position + 1])
            chosen[prompt, position] = prefix not in seen
            seen.add(prefix)
        return cls.of(batch, chosen)

    def cloud(self, points: Float[Tensor, "point dim"], **about: Any) -> LabeledCloud:
        """Return the points in some space, with their items and places."""
        where = self.labels, self.named, self.prompts, self.positions
        return LabeledCloud(points, *where, **about)


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
