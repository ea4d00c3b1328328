"""Case 2: local and global structure of a concept, in the residuals and in the latents."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torchmetrics import Metric

from saerepgeo.bounds import Count, check_settings
from saerepgeo.cases.analysis import AnalysisModule, ConceptPoints
from saerepgeo.cases.spaces import RESIDUALS, Space, all_spaces
from saerepgeo.cases.structure.paper_embedding import paper_embedding
from saerepgeo.cases.structure.protocols import paper_metrics, sound_metrics
from saerepgeo.geometry.clouds.entries import full_precision
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import Evidence, NullTest, PairMetric, RandomDictionaries
from saerepgeo.metrics.wrappers import Figure
from saerepgeo.report.results import of_count
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import AnalysisBatch, ConceptActivations

Protocol = Literal["paper", "sound"]
PURPOSES = {"residuals": "resid", "latents": "sound", "random": "sound, random dictionary"}
"""What the random draws of a space are for: every SAE is looked at by the same ones."""
DEFAULTS = {"paper": paper_metrics, "sound": sound_metrics}


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
        n_extreme: draws as extreme as the figure after which its null stops, with the p-values of
            `geometry.sequential_test`; 0: all draws are made.
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
        n_permutations: Count = 499,
        n_nulls: Count = 199,
        n_subsamples: Count = 100,
        n_random: Count = 1,
        name: str | None = None,
        seed: Count = 0,
        n_extreme: Count = 0,
    ) -> None:
        check_settings(StructureModule, locals())
        super().__init__(sae, name, n_random, seed)
        if not protocols:
            raise ValueError("`protocols` must name paper, sound or both, got none")
        draws = {"n_subsamples": n_subsamples, "n_nulls": n_nulls, "n_permutations": n_permutations}
        draws["n_extreme"] = n_extreme
        lists = {"paper": paper_metrics, "sound": metrics}
        surrounded = {"paper": dict.fromkeys(draws, 0), "sound": draws}
        self.evidence = nn.ModuleDict()
        self._spaces: dict[str, tuple[str, Space]] = {}
        for protocol in protocols:
            chosen = lists[protocol]
            chosen = DEFAULTS[protocol]() if chosen is None else chosen
            for kind, is_of_pairs in (("one", False), ("pair", True)):
                own = [m for m in chosen if isinstance(m, PairMetric) == is_of_pairs]
                self.evidence[f"{protocol} {kind}"] = Evidence(
                    own, **surrounded[protocol], seed=seed, sync_on_compute=False
                )
            for space in all_spaces(len(self.sources), n_random if protocol == "sound" else 0):
                self._spaces[f"{protocol}, {space.name}, {space.sae}"] = protocol, space
        self.parts = list(self._spaces)

    @torch.no_grad()
    @full_precision()
    def test_step(self, batch: AnalysisBatch, batch_idx: int) -> dict[str, Any]:
        """Return the rows of one space of one concept, the cloud they are about, their nulls."""
        protocol, space = self._spaces[batch.part]
        concept = batch.activations
        cloud = self._cloud(concept, protocol, space)
        one, pair = (self._evidence(f"{protocol} {kind}", space) for kind in ("one", "pair"))
        figures: dict[str, Figure] = one.results(cloud)
        if space != RESIDUALS:
            residuals = self._cloud(concept, protocol, RESIDUALS)
            figures |= pair.results(residuals, cloud)
        if space.kind == "latents" and protocol == "sound" and self.n_random > 1:
            figures |= self._beside_random(concept, space)
        figures["n_items"] = of_count(len(concept.items))
        figures["n_points"] = of_count(cloud.n_points)
        figures["n_merged"] = of_count(self._chosen(concept, protocol).n_merged)
        rows = self.rows(concept.concept, space, protocol, figures)
        nulls = {name: each.test.draws for name, each in figures.items() if each.test is not None}
        about = {"space": space, "protocol": protocol, "sae": rows[0]["sae"]}
        return {"rows": rows, "cloud": cloud, "nulls": nulls} | about

    def _evidence(self, kind: str, space: Space) -> Any:
        """Return the metrics of a protocol and kind with what surrounds them."""
        return self.evidence[kind]

    def _cloud(self, concept: ConceptActivations, protocol: str, space: Space) -> LabeledCloud:
        """Return the points of a space, made once while the concept is the same."""
        return self.kept((protocol, space), self._made, concept, protocol, space)

    def _made(self, concept: ConceptActivations, protocol: str, space: Space) -> LabeledCloud:
        seen, is_paper = self._chosen(concept, protocol), protocol == "paper"
        points = self.points(space, concept.residuals, seen.chosen, is_raw=is_paper)
        purpose = f"paper {space.kind}" if is_paper else PURPOSES[space.kind]
        purpose += f" {space.draw}" if space.draw else ""
        name = f"{concept.concept}/{purpose}"
        points = paper_embedding(points) if is_paper else points
        return seen.cloud(points, name=name, concept=concept.concept, is_turned=not is_paper)

    def _chosen(self, concept: ConceptActivations, protocol: str) -> ConceptPoints:
        """Return the points of a concept: those of their own, or for the paper every position."""
        if protocol == "paper":
            return ConceptPoints.of(concept, torch.ones_like(concept.is_real))
        return self.kept("distinct", ConceptPoints.distinct, concept)

    def _beside_random(self, concept: ConceptActivations, space: Space) -> dict[str, Figure]:
        """Return the figures of latents beside those of several random dictionaries.

        `{name}/beside_random`: the least p-value of n dictionaries is 1/(1 + n).
        """
        one: Any = self.evidence["sound one"]
        draws = [Space("random", space.sae, draw) for draw in range(self.n_random)]
        clouds = [self._cloud(concept, "sound", draw) for draw in draws]
        null = RandomDictionaries(clouds.__getitem__)
        test = NullTest(one.drawn, null, self.n_random, self.seed, sync_on_compute=False)
        found = test.results(self._cloud(concept, "sound", space)).items()
        return {f"{name}/beside_random": figure for name, figure in found if figure.test}
