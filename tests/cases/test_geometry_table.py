"""From a model's name to a table of figures, as a notebook user gets there."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import saerepgeo
from saerepgeo import ActivationDataModule, GeometryTable, geometry_table, new_sae, save_sae

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sae = new_sae("topk", d_in=32, d_sae=96, k=8, seed=3)
    return save_sae(sae, tmp_path_factory.mktemp("sae") / "sae", {"hook_name": HOOK})


def test_a_table_in_a_few_lines(tiny_lm: Path, saved: Path) -> None:
    lm, concepts = str(tiny_lm), ["months", "days"]

    data = saerepgeo.ActivationDataModule(lm, HOOK, lm_dtype="float32", concepts=concepts)
    sae = saerepgeo.load_sae(path=saved)
    table = saerepgeo.geometry_table(data, sae)

    assert [(row["concept"], row["space"]) for row in table] == [
        ("months", "residuals"),
        ("months", "latents"),
        ("days", "residuals"),
        ("days", "latents"),
    ]
    lines = str(table).splitlines()
    assert lines[0].split()[:4] == ["concept", "space", "points", "items"]
    assert lines[1].endswith("–")
    assert all(row["items"] == {"months": 12, "days": 7}[row["concept"]] for row in table)


@torch.no_grad()
def test_the_figures_are_those_of_numpy(tiny_data: dict[str, Any], saved: Path) -> None:
    data = ActivationDataModule(**(tiny_data | {"concepts": ["days"]}))
    sae = saerepgeo.load_sae(path=saved)
    residuals_row, latents_row = geometry_table(data, sae)

    concept = data.concept("days")
    seen, rows = set(), []
    for prompt, position in enumerate(concept.item_positions.tolist()):
        prefix = tuple(concept.tokens[prompt, : position + 1].tolist())
        if prefix not in seen:
            rows.append((prompt, position))
        seen.add(prefix)
    x = np.stack([concept.residuals[p, i].numpy() for p, i in rows]).astype(float)
    labels = np.array([int(concept.labels[p]) for p, _ in rows])
    assert residuals_row["points"] == len(x)
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    share = values[values > 1e-12] / values.sum()
    rank = float(np.exp(-(share * np.log(share)).sum()))
    assert residuals_row["effective_rank"] == pytest.approx(rank, rel=1e-4)
    centers = {k: x[labels == k].mean(0) for k in np.unique(labels)}
    between = sum((labels == k).sum() * ((c - x.mean(0)) ** 2).sum() for k, c in centers.items())
    within = sum(((x[labels == k] - c) ** 2).sum() for k, c in centers.items())
    assert residuals_row["fisher_ratio"] == pytest.approx(between / within, rel=1e-4)

    points = torch.tensor(x, dtype=torch.float32)
    out = sae.eval()(points)
    error = (out.recons - points).square().sum() / (points - points.mean(0)).square().sum()
    assert latents_row["fvu"] == pytest.approx(float(error), rel=1e-4)
    assert latents_row["l0"] == pytest.approx(float((out.latents.values > 0).sum(1).float().mean()))


def test_disagreement_is_named_before_the_model_is_loaded(
    tiny_data: dict[str, Any], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("saerepgeo.data.lm_module.FrozenLM.load", refuse)
    data = ActivationDataModule(**(tiny_data | {"hook_name": "blocks.0.hook_resid_post"}))
    with pytest.raises(ValueError, match=r"SAE and data module disagree: .*`blocks\.1\.hook"):
        geometry_table(data, saerepgeo.load_sae(path=saved))


def test_undefined_figures_print_as_a_dash() -> None:
    assert str(GeometryTable([])) == "(no rows)"
    row = {"concept": "days", "space": "latents", "dimension": math.nan, "l0": 1.5}
    assert str(GeometryTable([row])).splitlines()[1].split() == ["days", "latents", "–", "1.5"]


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, saerepgeo; assert 'torch' not in sys.modules, 'torch';"
        "assert 'load_sae' in dir(saerepgeo)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    for name in saerepgeo.__all__:
        assert getattr(saerepgeo, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'load_sea'"):
        _ = saerepgeo.load_sea
