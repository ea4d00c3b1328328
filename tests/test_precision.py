"""An analysis gives the same tables whatever `trainer.precision` is."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import LightningModule, Trainer
from training_process import FEW_DRAWS, analysis, write_config

from saerepgeo.cases.intervention.displacement import displacement_rows
from saerepgeo.cli import main
from saerepgeo.cli.checks import check_run
from saerepgeo.data import ActivationDataModule
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

# Lightning's advice and jsonargparse's remarks on Lightning: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")
CASES: dict[str, dict[str, Any]] = {
    "stratification": {"n_draws": 1, "noise_levels": [0.0, 0.1]},
    "structure": FEW_DRAWS,
    "intervention": {},
}
ARCHITECTURES = {"stratification": "standard", "structure": "topk", "intervention": "topk"}
"""Dense products are autocast by torch, sparse ones by `pair_products`."""


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    monkeypatch.setattr("sys.argv", ["saerepgeo"])
    monkeypatch.setattr(
        "saerepgeo.cases.intervention.interventions.displacement_rows",
        lambda points, _, generator: displacement_rows(points, (1.0, 1.5), generator, 2, 2),
    )
    monkeypatch.setattr(  # in place of UMAP, which takes long to compile; it multiplies as well
        "saerepgeo.cases.structure.paper_embedding.paper_embedding",
        lambda points: (points @ points[:2].T).double(),
    )


def tables(
    folder: Path, data: dict[str, Any], case: str, precision: str, patch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Return the tables of `test` by name; the language model runs for them."""
    folder.mkdir()
    patch.setenv("SAEREPGEO_CACHE", str(folder / "cache"))
    config = write_config(folder, data, folder.parent / "sae", 1)
    settings = yaml.safe_load(config.read_text())
    own = analysis(case, folder.parent / "sae", folder / "out", **CASES[case])
    if case == "intervention":
        own["model"]["class_path"] = "saerepgeo.cases.SeparabilityModule"
    settings["model"] = own.pop("model")
    settings["trainer"] |= own | {"precision": precision}
    config.write_text(yaml.safe_dump(settings))
    assert main(["test", "--config", str(config)]) == 0
    return {path.name: path.read_text() for path in (folder / "out").glob("*.csv")}


@pytest.mark.parametrize("case", CASES)
def test_tables_do_not_depend_on_the_precision_of_training(
    tmp_path: Path, few_prompts: dict[str, Any], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = ARCHITECTURES[case]
    options = {"k": 4} if architecture == "topk" else {}
    save_sae(new_sae(architecture, d_in=32, d_sae=96, **options), tmp_path / "sae")
    expected = tables(tmp_path / "32", few_prompts, case, "32-true", monkeypatch)
    found = tables(tmp_path / "16", few_prompts, case, "bf16-mixed", monkeypatch)
    assert expected
    assert found == expected


@pytest.mark.parametrize(("is_native", "n_said"), [(True, 0), (False, 1)])
def test_it_is_said_where_bfloat16_is_slow(
    tiny_data: dict[str, Any], is_native: bool, n_said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("saerepgeo.cli.checks.rank_zero_info", said.append)
    monkeypatch.setattr("saerepgeo.cli.checks.has_native_bfloat16", lambda device: is_native)
    trainer = Trainer(accelerator="cpu", precision="bf16-mixed", logger=False)
    data = ActivationDataModule(**tiny_data | {"lm_dtype": "bfloat16"})
    check_run(trainer, LightningModule(), data, "validate")
    assert len(said) == n_said
    assert all("`trainer.precision` bf16-mixed and `lm_dtype` bfloat16" in line for line in said)
    check_run(
        Trainer(accelerator="cpu", logger=False),
        LightningModule(),
        ActivationDataModule(**tiny_data),
        "validate",
    )
    assert len(said) == n_said
