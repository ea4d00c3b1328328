"""A prompts file of one's own through case 2: shipped names, other items."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_process import FEW_DRAWS

from saerepgeo.cli import main
from saerepgeo.report.files import read_rows
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

TEXTS = ("{}", "The old {} comes after snow.", "It rains and {} ends.", "A new day with {}.")
ITEMS = {
    "months": ["Nivôse", "Pluviôse", "Ventôse"],
    "days": ["Monday", "Caturday", "Doomsday"],
    "elements": ["Hydrogen", "Beryllium", "Astatine", "Oganesson"],
}


def test_case_2_on_a_file_of_ones_own(
    tiny_lm: Path,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    undrawn: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    table = {name: [t.format(i) for i in own for t in TEXTS] for name, own in ITEMS.items()}
    table["elements"].append("Salt is no element.")
    Path("own.json").write_text(json.dumps(table))
    sae = save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path / "sae")
    settings = {
        "trainer": {"accelerator": "cpu", "logger": False, "enable_progress_bar": False},
        "model": {"init_args": {"sae": {"path": str(sae)}, **FEW_DRAWS}},
        "data": {"init_args": {"lm": str(tiny_lm), "text": str(text_file)}},
    }
    settings["data"]["init_args"] |= {"hook_name": "blocks.1.hook_resid_post", "context_size": 16}
    Path("small.yaml").write_text(yaml.safe_dump(settings))
    configs = ["--config", "configs/case2.yaml", "--config", "small.yaml"]
    assert main(["test", *configs, "--data.init_args.prompts", "own.json"]) == 0
    told = [line for line in caplog.messages if "own.json" in line]
    assert len(told) == 1
    assert "elements 4 items and 16 prompts; items are the prompts that contain no" in told[0]
    assert told[0].endswith("; 1 left out, for naming none of them: Salt is no element.")
    rows = read_rows(Path("outputs", "case2_representation_structure", "results.csv"))
    assert {row["concept"] for row in rows} == set(ITEMS)
