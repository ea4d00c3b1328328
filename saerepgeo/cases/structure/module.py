"""Case 2: local and global structure of a concept, in the residuals and in the latents."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saerepgeo.cases.analysis import AnalysisModule
from saerepgeo.cases.concept_points import ConceptCloud, concept_cloud
from saerepgeo.cases.structure.paired_structure import pair_figures
from saerepgeo.cases.structure.paper_structure import label_paired_procrustes, paper_space
from saerepgeo.cases.structure.sound_structure import (
    Figure,
    SoundSettings,
    SpaceFigures,
    cloud_figures,
    subsamples,
)
from saerepgeo.geometry.dimension import ScaleCurve, gride
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import ConceptActivations, Float, Int, SparseLatents

__all__ = ["COLUMNS", "RANDOM", "SpaceView", "Structure", "StructureModule"]

Protocol = Literal["paper", "sound"]
RANDOM = "sound, random dictionary"
"""Protocol of the rows whose latents are those of random directions: the baseline of `sound`."""

COLUMNS = (
    "Concept",
    "Model",
    "Protocol",
    "Clusters Resid",
    "Clusters Latents",
    "Avg Dim Resid",
    "Avg Dim Latents",
    "Betti0 Resid",
    "Betti0 Latents",
    "MST Weight Resid",
    "MST Weight Latents",
    "AGD Resid",
    "AGD Latents",
    "Procrustes Disparity",
)
"""First columns of the table; sound rows go on with n, interval and p of each figure."""


class SpaceView(NamedTuple):
    """One space as figures show it."""

    points: Float[Tensor, "point dim"]
    clusters: Int[Tensor, "point"]
    """HDBSCAN's, −1 for noise."""
    items: Int[Tensor, "point"]
    """−1 where no item has been named yet."""
    mentions: Int[Tensor, "point"]
    """The item at the last token of its mention, elsewhere −1."""
    scales: ScaleCurve | None


class Structure(NamedTuple):
    """What case 2 finds for one concept."""

    model: str
    rows: list[dict[str, Any]]
    views: dict[str, dict[str, SpaceView]]
    """By protocol, then `resid` or `latents`."""
    n_items: int


class StructureModule(AnalysisModule):
    """Compare clusters, dimensions and arrangement of a concept before and after the SAE.

    Local representation: the points of one cluster. Global representation: the arrangement of the
    clusters. `paper` computes what the authors' code does (see `paper_structure`), on raw latents;
    `sound` asks the same of effective latents at real positions, with n, interval and null behind
    every figure (see `sound_structure`), and once more of a random dictionary.

    Args:
        sae: the SAE to look at.
        protocols: `paper` (needs umap-learn), `sound`, or both.
        min_cluster_size: of HDBSCAN, and neighbors that set the radius of Betti-0; sound.
        n_neighbors: of the graph that geodesic distances follow; sound.
        n_permutations: draws of the nulls that are fast.
        n_nulls: draws of the nulls that are slow; the least p-value is 1/(1 + draws).
        n_subsamples: subsamples behind an interval.
        name: the model in tables; by default its language model and layer.
        seed: of the random dictionary, nulls and subsamples; UMAP's is always 42.
    """

    def __init__(
        self,
        sae: SAESource,
        protocols: Sequence[Protocol] = ("paper", "sound"),
        min_cluster_size: int = 10,
        n_neighbors: int = 10,
        n_permutations: int = 499,
        n_nulls: int = 199,
        n_subsamples: int = 100,
        name: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(sae, name, seed)
        if not protocols:
            raise ValueError("`protocols` must name paper, sound or both, got none")
        self.protocols = tuple(protocols)
        self.settings = SoundSettings(
            min_cluster_size=min_cluster_size,
            n_neighbors=n_neighbors,
            n_permutations=n_permutations,
            n_nulls=n_nulls,
            n_subsamples=n_subsamples,
            seed=seed,
        )

    @torch.no_grad()
    def test_step(self, batch: ConceptActivations, batch_idx: int) -> dict[str, Structure]:
        """Return and log the figures of one concept."""
        rows: list[dict[str, Any]] = []
        views: dict[str, dict[str, SpaceView]] = {}
        for protocol in self.protocols:
            self.begin(f"{batch.concept}, {protocol}", self._n_steps(protocol))
            about = {"Concept": batch.concept, "Model": self.name, "Protocol": protocol}
            run = self._paper if protocol == "paper" else self._sound
            found, views[protocol] = run(batch)
            rows += [about | row for row in found]
        for row in rows:
            self._log(row)
        return {"result": Structure(self.name, rows, views, len(batch.items))}

    def _n_steps(self, protocol: Protocol) -> int:
        """Return how often `advance` is called: after each draw, each embedding."""
        if protocol == "paper":
            return 2
        s = self.settings
        of_space = s.n_subsamples + 2 * s.n_nulls + s.n_permutations
        return 3 * of_space + 2 * 3 * s.n_permutations

    def _paper(
        self, batch: ConceptActivations
    ) -> tuple[list[dict[str, Any]], dict[str, SpaceView]]:
        residuals = batch.residuals.flatten(0, 1)
        everywhere = torch.ones_like(batch.is_real)
        latents = self.sae.encode_prompts(batch.residuals, everywhere).latents
        raw = latents.to_dense() if isinstance(latents, SparseLatents) else latents
        resid = paper_space(residuals)
        self.advance()
        sparse = paper_space(raw)
        self.advance()
        row: dict[str, Any] = {
            "Procrustes Disparity": label_paired_procrustes(resid, sparse),
            "Items": len(batch.items),
            "n": len(residuals),
        }
        places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        knows = batch.is_real & (places >= batch.item_positions[:, None])
        items = torch.where(knows, batch.labels[:, None], -1).flatten().cpu()
        at = (places == batch.item_positions[:, None]).flatten().cpu()
        views = {}
        for side, space in (("Resid", resid), ("Latents", sparse)):
            row |= {
                f"Clusters {side}": space.n_clusters,
                f"Avg Dim {side}": space.average_dimension,
                f"Betti0 {side}": space.betti_0,
                f"MST Weight {side}": space.mst_weight,
                f"AGD {side}": space.agd,
            }
            views[side.lower()] = SpaceView(
                space.embedding, space.labels, items, torch.where(at, items, -1), None
            )
        return [row], views

    def _sound(
        self, batch: ConceptActivations
    ) -> tuple[list[dict[str, Any]], dict[str, SpaceView]]:
        cloud = concept_cloud(batch)
        prompts, chosen = batch.residuals, cloud.within(batch.is_real)
        residuals = prompts[chosen]
        latents = self.effective_latents(self.sae, prompts, chosen)
        random = self.effective_latents(self.random_sae(prompts, chosen), prompts, chosen)
        rows = subsamples(cloud, batch.concept, self.settings)
        resid = self._measure(residuals, cloud, f"{batch.concept}/resid", rows)
        found = []
        sides = {"resid": resid}
        for protocol, points in (("sound", latents), (RANDOM, random)):
            purpose = f"{batch.concept}/{protocol}"
            row = {"Protocol": protocol, "Items": len(batch.items), "n": len(cloud.rows)}
            row["Merged"] = cloud.n_merged
            measured = self._measure(points, cloud, purpose, rows)
            sides.setdefault("latents", measured)
            row |= _columns(resid.figures, "Resid")
            row |= _columns(measured.figures, "Latents")
            pairs = pair_figures(resid, measured, cloud, purpose, self.settings, self.advance)
            found.append(row | _columns(pairs, ""))
        views = {
            side: self._view(points, cloud, sides[side])
            for side, points in (("resid", residuals), ("latents", latents))
        }
        return found, views

    def _measure(
        self, points: Tensor, cloud: ConceptCloud, purpose: str, rows: list[Tensor]
    ) -> SpaceFigures:
        return cloud_figures(points, cloud, purpose, rows, self.settings, self.advance)

    def _view(self, points: Tensor, cloud: ConceptCloud, measured: SpaceFigures) -> SpaceView:
        mentions = torch.where(cloud.is_mention, cloud.labels, -1)
        curve = gride(measured.space.cloud)
        return SpaceView(points, measured.found.clusters.cpu(), cloud.labels, mentions, curve)

    def _log(self, row: Mapping[str, Any]) -> None:
        prefix = f"test/{row['Protocol'].replace(', ', '_').replace(' ', '_')}"
        for column in COLUMNS[3:]:
            key = f"{prefix}/{column.lower().replace(' ', '_')}/{row['Concept']}"
            self.log(key, float(row[column]), batch_size=1)


def _columns(figures: Mapping[str, Figure], side: str) -> dict[str, Any]:
    """Return a figure's value under its name, and what stands behind it in columns beside it."""
    columns: dict[str, Any] = {}
    for name, figure in figures.items():
        column = f"{name} {side}".strip()
        if figure.tested is not None:
            columns[f"{column} tested"] = figure.tested
        columns[column] = figure.value
        for part in ("n", "low", "high", "p", "null"):
            columns[f"{column} {part}"] = getattr(figure, part)
        if figure.reason is not None:
            columns[f"{column} reason"] = figure.reason
    return columns
