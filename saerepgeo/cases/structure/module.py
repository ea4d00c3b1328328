"""Case 2: local and global structure of a concept, in the residuals and in the latents."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torchmetrics import Metric

from saerepgeo.cases.analysis import AnalysisModule
from saerepgeo.cases.concept_points import all_positions, distinct_points
from saerepgeo.cases.spaces import RESIDUALS, Space, latent_spaces
from saerepgeo.cases.structure.paper_embedding import paper_embedding
from saerepgeo.cases.structure.protocols import paper_metrics, sound_metrics
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import Evidence, NullTest, PairMetric, RandomDictionaries
from saerepgeo.metrics.wrappers import Figure
from saerepgeo.report.results import of_count
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import AnalysisBatch, ConceptActivations

Protocol = Literal["paper", "sound"]
PURPOSES = {"residuals": "resid", "latents": "sound", "random": "sound, random dictionary"}
"""What the random draws of a space are for: every SAE is looked at by the same ones."""


class StructureModule(AnalysisModule):
    """Compare clusters, dimensions and arrangement of a concept before and after the SAE.

    Local representation: the points of one cluster. Global representation: the arrangement of the
    clusters. `paper` computes what the authors' code does (see `paper_embedding`), on raw latents
    at all positions; `sound` asks the same of effective latents at real positions, each causal
    prefix once, with n, interval and null behind every figure (see `Evidence`), and once more of
    random dictionaries. Metrics of pairs compare every space with the residuals.

    Args:
        sae: the SAE to look at, or several.
        protocols: `paper` (needs umap-learn), `sound`, or both.
        metrics: of protocol `sound`; None: `sound_metrics()`.
        paper_metrics: of protocol `paper`; None: `paper_metrics()`.
        n_permutations: draws of the nulls that are fast.
        n_nulls: draws of the nulls that are slow; the least p-value is 1/(1 + draws).
        n_subsamples: subsamples behind an interval.
        n_random: random dictionaries; of more than one, latents are tested against them as well.
        name: the model in tables; by default its language model and layer.
        seed: of the random dictionaries, nulls and subsamples; UMAP's is always 42.
    """

    def __init__(
        self,
        sae: SAESource | list[SAESource],
        protocols: Sequence[Protocol] = ("paper", "sound"),
        metrics: list[Metric] | None = None,
        paper_metrics: list[Metric] | None = None,
        n_permutations: int = 499,
        n_nulls: int = 199,
        n_subsamples: int = 100,
        n_random: int = 1,
        name: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(sae, name, n_random, seed)
        if not protocols:
            raise ValueError("`protocols` must name paper, sound or both, got none")
        draws = {"n_subsamples": n_subsamples, "n_nulls": n_nulls, "n_permutations": n_permutations}
        lists = {"paper": paper_metrics, "sound": metrics}
        surrounded = {"paper": dict.fromkeys(draws, 0), "sound": draws}
        self.evidence = nn.ModuleDict()
        self._spaces: dict[str, tuple[str, Space]] = {}
        for protocol in protocols:
            chosen = lists[protocol]
            chosen = DEFAULTS[protocol]() if chosen is None else chosen
            for kind, is_wanted in (("one", False), ("pair", True)):
                own = [m for m in chosen if isinstance(m, PairMetric) == is_wanted]
                self.evidence[f"{protocol} {kind}"] = Evidence(
                    own, **surrounded[protocol], seed=seed, sync_on_compute=False
                )
            random = n_random if protocol == "sound" else 0
            for space in (RESIDUALS, *latent_spaces(len(self.sources), random)):
                self._spaces[f"{protocol}, {space.name}, {space.sae}"] = protocol, space
        self.parts = list(self._spaces)

    @torch.no_grad()
    def test_step(self, batch: AnalysisBatch, batch_idx: int) -> dict[str, Any]:
        """Return the rows of one space of one concept, and the cloud that they are about."""
        protocol, space = self._spaces[batch.part]
        concept = batch.activations
        cloud = self.cloud(concept, protocol, space)
        figures = dict(self._figures(f"{protocol} one", cloud))
        if space != RESIDUALS:
            residuals = self.cloud(concept, protocol, RESIDUALS)
            figures |= self._figures(f"{protocol} pair", residuals, cloud)
        if space.kind == "latents" and protocol == "sound" and self.n_random > 1:
            figures |= self._beside_random(concept, space, figures)
        n_merged = self._points(concept, protocol).n_merged
        figures |= {
            "n_items": of_count(len(concept.items)),
            "n_points": of_count(cloud.n_points),
            "n_merged": of_count(n_merged),
        }
        rows = self.rows(concept.concept, space, protocol, figures)
        return {"rows": rows, "cloud": cloud, "space": space, "protocol": protocol}

    def cloud(self, concept: ConceptActivations, protocol: str, space: Space) -> LabeledCloud:
        """Return the points of a space, made once while the concept is the same."""

        def make() -> LabeledCloud:
            about, residuals = self._points(concept, protocol), concept.residuals
            if protocol == "sound":
                encode, name = self.effective_latents, PURPOSES[space.kind]
                name += f" {space.draw}" if space.draw else ""
            else:
                encode, name = self.raw_latents, f"paper {space.kind}"
            points = residuals[about.chosen]
            if space != RESIDUALS:
                points = encode(space, residuals, about.chosen)
            if protocol == "paper":
                points = paper_embedding(points)
            return LabeledCloud(
                points,
                about.labels,
                about.named,
                about.prompts,
                about.positions,
                name=f"{concept.concept}/{name}",
                concept=concept.concept,
                is_turned=protocol == "sound",
            )

        made: LabeledCloud = self.kept(concept.concept, (protocol, space), make)
        return made

    def _beside_random(
        self, concept: ConceptActivations, space: Space, figures: Mapping[str, Figure]
    ) -> dict[str, Figure]:
        """Return the figures of latents beside those of several random dictionaries.

        `{name}/beside_random`: the least p-value of n dictionaries is 1/(1 + n).
        """
        one: Any = self.evidence["sound one"]
        null = RandomDictionaries(
            lambda draw: self.cloud(concept, "sound", Space("random", space.sae, draw))
        )
        test = NullTest(one.drawn, null, self.n_random, self.seed, sync_on_compute=False)
        tests = test.tests(self.cloud(concept, "sound", space))
        return {
            f"{name}/beside_random": Figure(figures[name].estimate, test=found)
            for name, found in tests.items()
        }

    def _points(self, concept: ConceptActivations, protocol: str) -> Any:
        find = distinct_points if protocol == "sound" else all_positions
        return self.kept(concept.concept, protocol, lambda: find(concept))

    def _figures(self, kind: str, *clouds: LabeledCloud) -> Mapping[str, Figure]:
        evidence: Any = self.evidence[kind]
        if not evidence.metrics:
            return {}
        evidence.reset()
        evidence.update(*clouds)
        found: dict[str, Figure] = evidence.results()
        return found


DEFAULTS = {"paper": paper_metrics, "sound": sound_metrics}
