"""What the tests of `compare` share: its settings on small SAEs, and its rows."""

from pathlib import Path
from typing import Any

import torch
import yaml

from saerepgeo.report.results import read_results
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

METRICS = ("SpectralRanks", "TwoNN", "FisherRatio", "ProcrustesDisparity")
FEW = {"n_permutations": 7, "n_nulls": 3, "n_extreme": 2, "n_subsamples": 3, "n_contexts": 2}
OURS = ("hook_name", "test_with_padding")
ONE, TWO = "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"
Row = dict[str, Any]


def write_comparison(folder: Path, data: dict[str, Any]) -> Path:
    """Write two SAEs of one hook, one of another, and the file that compares them."""
    saes = []
    for name, k, hook in (("few", 2, ONE), ("many", 8, ONE), ("deep", 4, TWO)):
        torch.manual_seed(k)
        save_sae(
            new_sae("topk", d_in=32, d_sae=96, k=k, seed=k), folder / name, {"hook_name": hook}
        )
        saes.append({"path": str(folder / name)})
    given = FEW | {
        "saes": saes,
        "output": str(folder / "out"),
        "metrics": metrics(*METRICS),
        "data": {name: value for name, value in data.items() if name not in OURS},
    }
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def metrics(*names: str) -> list[dict[str, str]]:
    return [{"class_path": f"saerepgeo.metrics.{name}"} for name in names]


def rows_at(config: Path) -> list[Row]:
    return read_results(config.parent / "out" / "results.csv")


def changed(config: Path, **new: Any) -> Path:
    """Change settings in the file."""
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | new))
    return config
