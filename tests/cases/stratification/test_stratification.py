"""Case 1: spectra of masked tensors, noise, strata, and what is left on disk."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from saerepgeo.cases.analysis import model_name
from saerepgeo.cases.spaces import random_model
from saerepgeo.cases.stratification.artifacts import StratificationArtifacts
from saerepgeo.cases.stratification.module import StratificationModule, noise_unit
from saerepgeo.cases.stratification.table import rank_rows, strata, summary
from saerepgeo.metrics import TensorRanks
from saerepgeo.report.files import read_rows
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import to_dense
from tests.planted import planted_concept, run_test, save_isometric_sae


def test_noise_in_units_of_the_residuals() -> None:
    residuals = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert noise_unit(30 * residuals, "relative") == pytest.approx(
        30 * noise_unit(residuals, "relative")
    )
    assert noise_unit(30 * residuals, "absolute") == 1.0


def row(noise: float, draw: int, rank: int) -> dict[str, Any]:
    about = {"model": "m", "concept": "c", "space": "latents", "mode": "feature"}
    condition = {"noise_scale": "absolute", "noise": noise, "draw": draw}
    return {**about, **condition, "tolerance": "eps", "rank": rank, "n_rows": 10}


def test_strata_are_the_distinct_ranks_with_spread_over_levels_and_draws() -> None:
    rows = [row(0, 0, 3), row(1, 0, 5), row(1, 1, 7), row(2, 0, 9), row(2, 1, 9)]
    (found,) = strata(rows)
    assert (found["strata"], found["n_strata"]) == ("3 5 7 9", 4)
    assert found["stratum_dimension"] == 10 * 3 - 3
    assert found["sd_levels"] == pytest.approx(3.0)  # of 3, 6, 9
    assert found["sd_draws"] == pytest.approx(1.0)  # variances 2 and 0
    assert "4 strata, rank 3–9" in summary([found])


@pytest.mark.parametrize("architecture", ["topk", "standard", "jumprelu", "gated"])
def test_the_random_dictionary_has_the_sparsity_but_other_directions(architecture: str) -> None:
    generator = torch.Generator().manual_seed(0)
    residuals = torch.randn(300, 16, generator=generator) + 3
    k = {"k": 5} if architecture == "topk" else {}
    model = new_sae(architecture, d_in=16, d_sae=64, normalize_activations="layer_norm", **k)
    with torch.no_grad():
        model.sae.W_dec.mul_(4)
    everywhere = torch.ones(1, len(residuals), dtype=torch.bool)
    random = random_model(model, residuals[None], everywhere, generator)
    assert random.normalization == "layer_norm"
    dense = [to_dense(m.effective_latents(m.encode(residuals).latents)) for m in (model, random)]
    l0 = [float((x != 0).sum(1).float().mean()) for x in dense]
    assert l0[1] == pytest.approx(l0[0], abs=1.0)
    rows = model.sae.W_dec.detach(), random.sae.W_dec
    assert float(torch.cosine_similarity(*rows, dim=1).abs().mean()) < 0.5


def test_case_1_leaves_tables_tensors_and_figures(tmp_path: Path) -> None:
    save_isometric_sae(tmp_path / "sae")
    module = StratificationModule(
        SAESource(path=str(tmp_path / "sae")),
        noise_levels=(0.0, 1.0),
        noise_scales=("absolute",),
        n_draws=2,
        metrics=[TensorRanks((0.01,))],
        name="a/b c",
    )
    writer = StratificationArtifacts(str(tmp_path / "out"))
    found = run_test(module, writer, folder=tmp_path)
    rows = read_rows(tmp_path / "out" / "rank_by_noise.csv")
    assert len(rows) == 3 * 3 * (1 + 2) == len(rank_rows(found))
    assert {r["n_points"] for r in rows} == {str(int(planted_concept().is_real.sum()))}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    for space in ("residuals", "latents", "random"):
        assert f"rank_by_noise_a_b_c_{space}_0.01.png" in names
        assert f"rank_by_noise_a_b_c_{space}_0.01.svg" in names
    batch = planted_concept()
    stored = load_file(tmp_path / "out" / "latents_a_b_c_planted.safetensors")
    tensor = torch.zeros(stored["shape"].tolist())
    tensor[tuple(stored["indices"])] = stored["values"]
    torch.testing.assert_close(tensor[batch.is_real][:, :32], batch.residuals[batch.is_real])
    assert not tensor[~batch.is_real].any()
    spectra = load_file(tmp_path / "out" / "spectra_a_b_c_planted.safetensors")
    assert spectra["latents/feature/absolute/1.0"].shape[0] == 2


def test_bad_levels_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    save_isometric_sae(tmp_path)
    with pytest.raises(ValueError, match="`noise_levels`"):
        StratificationModule(SAESource(path=str(tmp_path)), noise_levels=(-1.0,))


def test_a_local_folder_is_named_by_its_last_part() -> None:
    assert model_name("/models/pythia-1.4b", "blocks.3.hook_resid_post") == "pythia-1.4b Layer 3"
    assert model_name("x/m.Q4_1.gguf", "blocks.3.hook_resid_post") == "m.Q4_1 Layer 3"
