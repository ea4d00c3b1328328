"""`compare` on a release that a regular expression over the registry names, fetched from a hub."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import HubServer
from small_comparison import FEW, metrics
from small_releases import D_SAE, PYTHIA

from saerepgeo.experiment.compare import main
from saerepgeo.report.results import read_results


@pytest.mark.filterwarnings("ignore::Warning")  # Lightning's advice
def test_compare_fetches_a_release_by_regular_expression(
    hub: HubServer, tmp_path: Path, few_prompts: dict[str, Any]
) -> None:
    data = {n: v for n, v in few_prompts.items() if n not in ("hook_name", "test_with_padding")}
    given = FEW | {
        "saes": [{"release": "pythia-70m-deduped-(res)-sm", "sae_id": r"blocks\.5\..*"}],
        "metrics": metrics("SpectralRanks", "FisherRatio"),
        "n_random": 0,
        "output": str(tmp_path / "out"),
        "data": data | {"lm": PYTHIA},
    }
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(given))
    assert main(["--config", str(tmp_path / "compare.yaml")]) == 0
    assert len(hub.bodies("5-res-sm/sae_weights.safetensors")) == 1
    rows = read_results(tmp_path / "out" / "results.csv")
    own = {(row["space"], row["metric"]): row for row in rows if row["sae"]}
    assert {row["sae"] for row in rows} == {
        "",
        "pythia-70m-deduped-res-sm/blocks.5.hook_resid_post",
    }
    assert 0 < own["recons", "l0"]["value"] <= D_SAE
    assert own["recons", "ce_recovered"]["reason"] is None
    assert own["latents", "fisher_ratio"]["hook"] == "blocks.5.hook_resid_post"
