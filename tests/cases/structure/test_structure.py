"""Case 2: which points there are, the paper's steps, and what is left on disk."""

import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial import procrustes

from saerepgeo.cases.analysis import ConceptPoints
from saerepgeo.cases.structure.artifacts import StructureArtifacts
from saerepgeo.cases.structure.module import StructureModule
from saerepgeo.cases.structure.paper_embedding import UMAP_SEED, UMAP_SETTINGS, paper_embedding
from saerepgeo.cases.structure.protocols import paper_metrics
from saerepgeo.cases.structure.table import COLUMNS, clustering_rows, summary
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import Evidence, PairMetric, ProcrustesDisparity
from saerepgeo.report.files import read_rows
from saerepgeo.report.results import COLUMNS as LONG_COLUMNS
from saerepgeo.report.results import RESULTS, read_results
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import ConceptActivations
from tests.planted import planted_concept, run_test, save_isometric_sae


def test_a_causal_prefix_is_one_point_and_knows_its_item_from_the_mention_on() -> None:
    tokens = torch.tensor([[0, 7, 8, 9], [0, 7, 8, 5], [0, 4, 2, 2]])
    batch = ConceptActivations(
        concept="c",
        items=("a", "b"),
        tokens=tokens,
        residuals=torch.randn(3, 4, 2),
        is_real=torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 0]]).bool(),
        labels=torch.tensor([0, 0, 1]),
        item_positions=torch.tensor([2, 2, 1]),
    )
    points = ConceptPoints.distinct(batch)
    assert points.chosen.nonzero().tolist() == [[0, 1], [0, 2], [0, 3], [1, 3], [2, 1], [2, 2]]
    assert points.prompts.tolist() == [0, 0, 0, 1, 2, 2]  # 7 and 7 8 come twice
    assert points.positions.tolist() == [1, 2, 3, 3, 1, 2]
    assert points.named.tolist() == [-1, 0, 0, 0, 1, 1]
    assert points.labels.tolist() == [-1, 0, -1, -1, 1, -1]
    assert points.n_merged == 2
    everywhere = ConceptPoints.of(batch, torch.ones_like(batch.is_real))
    assert bool(everywhere.chosen.all())
    assert everywhere.named.tolist() == [-1, -1, 0, 0, -1, -1, 0, 0, -1, 1, 1, -1]


@pytest.mark.slow  # numba compiles UMAP
def test_paper_standardizes_scales_rows_and_embeds_alike_under_one_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(90, 20, generator=generator)
    points[:, 3] = 5.0  # a constant feature
    first = paper_embedding(points)
    assert first.shape == (90, 50)
    # standardization takes shift and scale of each feature out, up to float32
    assert torch.equal(first, paper_embedding(points))
    moved = paper_embedding(points * torch.tensor([2.0] * 20) + 0.5)
    assert torch.isfinite(moved).all()
    with pytest.raises(ValueError, match="needs 52 points"):
        paper_embedding(points[:51])


@pytest.mark.slow
def test_neighbors_found_by_us_give_the_embedding_that_umap_gives_alone() -> None:
    from sklearn.preprocessing import StandardScaler, normalize

    generator = torch.Generator().manual_seed(3)
    points = torch.randn(150, 300, generator=generator) * (
        torch.rand(150, 300, generator=generator) < 0.1
    )
    points[100:] = points[:50]  # padding and shared beginnings: equal rows, equal distances
    rows = normalize(StandardScaler().fit_transform(points.numpy()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP

        from saerepgeo.cases.structure.umap_neighbors import seeded_eigenvectors

        reducer = UMAP(**UMAP_SETTINGS, random_state=UMAP_SEED, n_jobs=1)
        with seeded_eigenvectors(UMAP_SEED):
            alone = reducer.fit_transform(rows)
    assert np.array_equal(paper_embedding(points).numpy(), alone.astype(np.float64))


@pytest.mark.slow
def test_paper_embeds_alike_where_the_neighbor_graph_falls_apart() -> None:
    generator = torch.Generator().manual_seed(4)
    points = torch.randn(500, 40, generator=generator)
    points[200:] = 50.0  # equal rows, as padding is
    assert torch.equal(paper_embedding(points), paper_embedding(points))


def paper_cloud(n_clusters: int, generator: torch.Generator) -> LabeledCloud:
    """Groups far apart."""
    centers = 50 * torch.randn(n_clusters, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(20 * n_clusters, 6, generator=generator, dtype=torch.float64)
    return LabeledCloud(centers.repeat_interleave(20, 0) + noise, is_turned=False)


def test_paper_finds_separate_groups_and_their_tree() -> None:
    generator = torch.Generator().manual_seed(1)
    centers = 4 * torch.randn(3, 30, generator=generator)
    points = centers.repeat_interleave(40, 0) + torch.randn(120, 30, generator=generator)
    cloud = LabeledCloud(paper_embedding(points), is_turned=False)
    alone = [metric for metric in paper_metrics() if not isinstance(metric, PairMetric)]
    found = Evidence(alone, 0, 0, 0).results(cloud)
    assert float(found["cluster_count"].estimate) == 3
    truth, clusters = torch.arange(3).repeat_interleave(40), cloud.clusters(10)
    for label in range(3):
        assert len(truth[clusters == label].unique()) == 1
    means = torch.stack([cloud.points[clusters == k].mean(0) for k in range(3)])
    sides = torch.cdist(means, means)[[0, 0, 1], [1, 2, 2]].sort().values
    assert float(found["mstw"].estimate) == pytest.approx(float(sides[:2].sum()))
    assert float(found["two_nn_per_cluster"].estimate) > 0
    assert all(math.isnan(figure.interval.low) for figure in found.values())
    assert all(figure.test is None for figure in found.values()), "the paper has no p-values"


def test_paper_pairs_means_by_cluster_number_like_scipy() -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = (paper_cloud(n_clusters, generator) for n_clusters in (4, 3))
    means = [
        np.stack([c.points[c.clusters(10) == k].mean(0).numpy() for k in range(3)]) for c in (x, y)
    ]
    metric = ProcrustesDisparity("cluster_numbers")
    assert float(metric.of_pair(x, y)) == pytest.approx(procrustes(*means)[2])
    alone = LabeledCloud(y.points[:20], is_turned=False)
    assert metric.of_pair(alone, y).reason is not None


def test_without_umap_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ValueError, match=r"pip install saerepgeo\[umap\]"):
        paper_embedding(torch.randn(60, 5))


@pytest.mark.slow
def test_case_2_leaves_both_protocols_side_by_side(tmp_path: Path) -> None:
    save_isometric_sae(tmp_path / "sae")
    source, out = SAESource(path=str(tmp_path / "sae")), tmp_path / "out"
    work = {"n_permutations": 19, "n_nulls": 3, "n_subsamples": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's and UMAP's, as at the command line
        writer = StructureArtifacts(str(out))
        found = run_test(StructureModule(source, **work), writer, folder=tmp_path)
    long = read_results(out / RESULTS)
    assert tuple(long[0]) == LONG_COLUMNS
    assert len(long) == len(found)
    assert all(row["value"] == row["value"] or row["reason"] for row in long)
    table = out / "clustering_analysis_results.csv"
    rows = read_rows(table)
    assert [r["Protocol"] for r in rows] == ["paper", "sound", "sound, random dictionary"]
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    batch = planted_concept()
    n_real = str(int(batch.is_real.sum()))
    assert [r["n"] for r in rows] == [str(batch.tokens.numel()), n_real, n_real]
    for column in COLUMNS[3:]:
        assert rows[0][f"{column} p"] == "", "the paper has no p-values"
        assert 0 < float(rows[1][f"{column} p"]) <= 1
        assert int(rows[1][f"{column} n"]) > 0
        assert float(rows[1][f"{column} low"]) <= float(rows[1][f"{column} high"])
    paper = np.load(out / "clusters_planted_Layer_0_planted_resid.npy", allow_pickle=False)
    assert paper.shape == (batch.tokens.numel(),)
    sound = np.load(out / "clusters_planted_Layer_0_planted_sound_latents.npy", allow_pickle=False)
    assert sorted(set(sound.tolist()) - {-1}) == [0, 1, 2, 3]
    stored = load_file(out / "resid_planted_Layer_0_planted.safetensors")
    assert torch.equal(stored["residuals"], batch.residuals)
    figures = {path.name for path in out.glob("*.svg")}
    for name in ("cluster_map_paper", "cluster_map_sound", "item_tree", "dimension_by_scale"):
        assert f"{name}_planted_Layer_0_planted.svg" in figures
    assert {f"metrics_planted_Layer_0_{name}.svg" for name in ("paper", "sound")} <= figures
    assert "sound, random dictionary" in summary(clustering_rows(found))


def test_no_protocol_is_refused(tmp_path: Path) -> None:
    save_isometric_sae(tmp_path)
    source: Any = SAESource(path=str(tmp_path))
    with pytest.raises(ValueError, match="paper, sound or both"):
        StructureModule(source, protocols=())
