"""On activations of known structure both cases recover it: k clusters, dimension d, rank r."""

from typing import Any

import pytest

from saerepgeo.cases.stratification.module import StratificationModule
from saerepgeo.cases.stratification.table import rank_rows
from saerepgeo.cases.structure.module import StructureModule
from saerepgeo.cases.structure.table import RANDOM, clustering_rows
from saerepgeo.metrics import TensorRanks
from saerepgeo.sae.sae_source import SAESource
from tests.planted import DIMENSION, N_ITEMS, RANK, run_test, save_isometric_sae


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> SAESource:
    folder = tmp_path_factory.mktemp("sae")
    save_isometric_sae(folder)
    return SAESource(path=str(folder))


@pytest.fixture(scope="module")
def ranks(sae: SAESource, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    module = StratificationModule(
        sae,
        noise_levels=(0.0, 0.05, 0.2),
        noise_scales=("absolute",),
        metrics=[TensorRanks(("eps", "gavish-donoho"))],
    )
    return rank_rows(run_test(module, folder=tmp_path_factory.mktemp("case1")))


@pytest.fixture(scope="module")
def structure(sae: SAESource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    module = StructureModule(
        sae, protocols=("sound",), n_permutations=99, n_nulls=9, n_subsamples=12
    )
    rows = run_test(module, folder=tmp_path_factory.mktemp("case2"))
    return {row["Protocol"]: row for row in clustering_rows(rows)}


@pytest.mark.parametrize("space", ["residuals", "latents"])
def test_case_1_recovers_the_rank_in_every_draw(ranks: list[dict[str, Any]], space: str) -> None:
    found = [row for row in ranks if row["space"] == space and row["mode"] == "feature"]
    clean = [row for row in found if row["noise"] == 0 and row["tolerance"] == "eps"]
    assert {int(row["rank"]) for row in clean} == {RANK}
    noisy = [row for row in found if row["noise"] > 0 and row["tolerance"] == "gavish-donoho"]
    assert len(noisy) == 6, "two levels of three draws"
    assert {int(row["rank"]) for row in noisy} == {RANK}


def test_noise_fills_the_rank_that_eps_sees_and_a_random_dictionary_needs_none(
    ranks: list[dict[str, Any]],
) -> None:
    feature = [row for row in ranks if row["mode"] == "feature" and row["tolerance"] == "eps"]
    noisy = [row for row in feature if row["space"] == "residuals" and row["noise"] == 0.2]
    assert {int(row["rank"]) for row in noisy} == {32}
    random = [row for row in feature if row["space"] == "random" and row["noise"] == 0]
    assert all(int(row["rank"]) > RANK for row in random)


@pytest.mark.parametrize("side", ["Resid", "Latents"])
def test_case_2_recovers_clusters_and_dimension_within_its_intervals(
    structure: dict[str, Any], side: str
) -> None:
    row = structure["sound"]
    for name, planted in (
        (f"Clusters {side}", N_ITEMS),
        (f"Betti0 {side}", N_ITEMS),
        (f"Avg Dim {side}", DIMENSION),
        (f"Global Dim {side}", DIMENSION),
    ):
        low, high = float(row[f"{name} low"]), float(row[f"{name} high"])
        assert low <= planted <= high, name
        assert high - low < planted, f"{name}: an interval that wide says nothing"


def test_planted_separation_is_no_chance_and_the_arrangement_survives(
    structure: dict[str, Any],
) -> None:
    row = structure["sound"]
    for side in ("Resid", "Latents"):
        assert row[f"Clusters {side} p"] == pytest.approx(1 / 10)
        for name in ("MST Weight", "Relative AEDP"):
            assert float(row[f"{name} {side} p"]) == pytest.approx(1 / 100)
    assert float(row["Procrustes Disparity"]) < 1e-6
    assert float(row["Matched Procrustes Disparity"]) < 1e-6
    assert float(row["Unmatched Mass"]) == 0
    # the same centroids through other latents, and the same residuals beside them
    random = structure[RANDOM]
    assert random["Clusters Resid"] == row["Clusters Resid"]
    assert float(random["Procrustes Disparity"]) > 1e-3
