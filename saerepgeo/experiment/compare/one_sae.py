"""One SAE of a comparison: case 2 on its latents, beside residuals that all SAEs share."""

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import nn, no_grad, tensor

from saerepgeo.callbacks.lm_loss import recovery_figures, sae_fingerprint
from saerepgeo.cases.spaces import RESIDUALS, Space
from saerepgeo.cases.structure.module import StructureModule
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.experiment.compare.core_figures import CoreFigures, weight_figures
from saerepgeo.experiment.compare.listing import Listed
from saerepgeo.experiment.compare.settings import Comparison
from saerepgeo.experiment.compare.shared import Work, shared
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import Evidence
from saerepgeo.metrics.wrappers import Figure
from saerepgeo.types import ConceptActivations, Estimate

TEXT, RECONS = "text", "recons"
"""Concept and space of the rows on held-out text."""
RECOVERED = ("ce_recovered", "kl_recovered", "ce_clean", "ce_sae", "ce_zero", "kl_sae", "kl_zero")
Clouds = dict[str, LabeledCloud]
Told = Callable[[str], None]
Row = dict[str, Any]


class OneSAE(StructureModule):
    """Case 2, protocol sound, for one SAE; `clouds` are the residuals of its hook by concept.

    What one SAE has found of the residuals (distances, clusters, subsamples) serves the next. Rows
    of the residuals themselves are made `with_residuals` only. Random dictionaries are a baseline:
    they have intervals and no nulls of their own.
    """

    def __init__(
        self, listed: Listed, comparison: Comparison, clouds: Clouds, with_residuals: bool
    ) -> None:
        metrics: Any = comparison.metrics
        draws: dict[str, Any] = comparison.draws
        super().__init__(listed.source, ["sound"], metrics, **draws)
        self.sae_names, self.clouds = [listed.name], clouds
        own: Any = self.evidence
        without = draws | {"n_permutations": 0, "n_nulls": 0}
        without.pop("n_random")
        self.baseline: Any = nn.ModuleDict(
            {
                kind: Evidence(each.metrics, **without, sync_on_compute=False)
                for kind, each in own.items()
            }
        )
        if not with_residuals:
            self.parts = [part for part, (_, s) in self._spaces.items() if s != RESIDUALS]

    def _evidence(self, kind: str, space: Space) -> Any:
        return self.baseline[kind] if space.kind == "random" else super()._evidence(kind, space)

    def _cloud(self, concept: ConceptActivations, protocol: str, space: Space) -> LabeledCloud:
        if space != RESIDUALS:
            return super()._cloud(concept, protocol, space)
        if concept.concept not in self.clouds:
            self.clouds[concept.concept] = super()._cloud(concept, protocol, space)
        return self.clouds[concept.concept]


class Collected(Callback):
    """Keep the rows of all steps; after the last of the `n_parts` of a concept call `told`."""

    def __init__(self, n_parts: int, told: Told) -> None:
        self.rows: list[Row] = []
        self.n_parts, self.told = n_parts, told

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.rows += outputs["rows"]
        if (batch_idx + 1) % self.n_parts == 0:
            self.told(batch.activations.concept)


def rows_of(
    listed: Listed, work: Work, known: Sequence[Row] = (), told: Told = lambda about: None
) -> list[Row]:
    """Return the rows of an SAE: its hook's residuals, itself concept by concept, held-out text.

    All arguments but `told` can be sent to another process; what SAEs of a hook share is computed
    once a process, and rows of the residuals not at all where they are `known`. `told` is called
    when a concept, or the text, is done. Raises ValueError where the SAE is damaged or is not one
    of the data.
    """
    comparison, data = work.comparison, shared(work).at(listed.hook_name)
    residuals = list(known) or data.residual_rows
    module = OneSAE(listed, comparison, data.clouds, with_residuals=not residuals)
    collected = Collected(len(module.parts), told)
    trainer = work.trainer(collected)
    trainer.test(module, datamodule=data, verbose=False)
    figures = text_figures(module, data, trainer.strategy.root_device, comparison.n_contexts)
    of_text = module.rows(TEXT, Space("latents"), "sound", figures)
    told(TEXT)
    own = [row for row in collected.rows if row["sae"]]
    data.residual_rows = residuals or [row for row in collected.rows if not row["sae"]]
    return data.residual_rows + own + [row | {"space": RECONS} for row in of_text]


@no_grad()
def text_figures(
    module: OneSAE, data: ActivationDataModule, device: Any, n_contexts: int
) -> dict[str, Figure]:
    """Return mse, fvu, l0, …, all that SAEBench's `core` reports, and what the model recovers.

    Of the data's held-out text (see `CoreFigures`); `n` counts its points, of the language model's
    losses the contexts that they were taken on, at most `n_contexts`. A temporal SAE and a
    transcoder have none: the reason says why.
    """
    (source,), saes = module.sources, module.saes
    sae: Any = saes[0].to(device).eval()
    text = data.val_dataloader()[0]
    own = CoreFigures(sae, text.points.residuals.mean(0)).to(device)
    of_weights = {name: Figure(estimate) for name, estimate in weight_figures(sae).items()}
    names = [*own.estimates(), *(RECOVERED if n_contexts else ())]
    try:
        source.check_use("validate")
    except ValueError as error:
        return {name: Figure(Estimate.undefined(str(error))) for name in names} | of_weights
    for batch in text:
        residuals = batch.residuals.to(device)
        own.add(residuals, sae(residuals))
    found = {name: Figure(estimate) for name, estimate in own.estimates().items()} | of_weights
    if n_contexts:
        tokens = data.heldout_contexts()[:n_contexts]
        about = data.lm_settings, tokens, sae, device, None, sae_fingerprint(sae)
        for name, value in recovery_figures(lambda: data.lm, *about).items():
            found[name] = Figure(_of_contexts(value, len(tokens)))
    return found


def _of_contexts(value: float, n_contexts: int) -> Estimate:
    if value != value:
        return Estimate.undefined("nothing is lost that could be recovered", n_contexts)
    return Estimate(tensor(value).double(), n_contexts, 0)
