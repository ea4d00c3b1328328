"""Folders of runs whose tables are made up: what pages are written from, without a model."""

import json
from pathlib import Path
from typing import Any

import torch

from saerepgeo.cases.spaces import LATENTS, RESIDUALS, Space
from saerepgeo.cases.structure.shown import write_shown
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.report.files import write_rows
from saerepgeo.report.results import COLUMNS
from tests.planted import planted_concept

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'
NAN = float("nan")
SPACES = (RESIDUALS, LATENTS, Space("random"))


def row(metric: str = "procrustes", space: str = "latents", **more: Any) -> dict[str, Any]:
    """Return a row of the long table: a disparity far below its null, unless told otherwise."""
    about = {"model": "tiny Layer 1", "hook": "blocks.1.hook_resid_post", "concept": "days"}
    about |= {"sae": "" if space == "residuals" else "mine", "space": space, "protocol": "sound"}
    figures = {"value": 0.02, "n": 49, "low": 0.01, "high": 0.03, "null": 0.1, "p": 0.002}
    found: dict[str, Any] = about | {"metric": metric} | figures | {"reason": None, "seed": 0}
    return {name: (found | more)[name] for name in COLUMNS}


def dimensions(latents: tuple[float, float, float]) -> list[dict[str, Any]]:
    """Return rows of the dimension: the residuals' 10 [8, 12], and the latents'."""
    value, low, high = latents
    none = {"null": NAN, "p": NAN}
    return [
        row("two_nn_within", "residuals", value=10.0, low=8.0, high=12.0, **none),
        row("two_nn_within", "latents", value=value, low=low, high=high, **none),
        row("two_nn_within", "random", value=20.0, low=18.0, high=22.0, **none),
    ]


def structure_run(folder: Path, name: str = "days", text: str = "It rains on Monday.") -> Path:
    """Write what case 2 leaves; `name` is that of concept, items and SAE, `text` every prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row("procrustes"), row("procrustes", "random", value=0.5, low=0.4, high=0.6)]
    rows += dimensions((11.0, 9.0, 13.0))
    rows += [row(f"gride/{k}", space.name, value=5.0 + k) for k in (1, 2) for space in SPACES]
    named = [each | {"concept": name, "sae": each["sae"] and name} for each in rows]
    write_rows(folder / "results.csv", named, COLUMNS)
    batch = planted_concept()._replace(concept=name, items=tuple(f"{name} {i}" for i in range(4)))
    generator = torch.Generator().manual_seed(0)
    items = torch.arange(4).repeat_interleave(10)
    parts: list[Any] = []
    for space in SPACES:
        points = torch.randn(40, 8, generator=generator) + 5 * torch.eye(8)[items]
        cloud = LabeledCloud(points, items, concept=name)
        nulls = {"procrustes": tuple(0.1 + 0.001 * i for i in range(99))}
        part = {"cloud": cloud, "protocol": "sound", "space": space, "nulls": nulls}
        parts.append(part | {"sae": "" if space == RESIDUALS else name})
    write_shown(folder / "shown_days.json", "tiny", batch, [text] * 40, parts)
    settings = folder / "version_0" / "resolved_config.yaml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(f"seed_everything: 7\nprompts: {json.dumps(text)}\n")
    return folder


def noise_run(folder: Path) -> Path:
    """Write what case 1 leaves: two levels of noise, three spaces, two draws."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"model": "tiny", "concept": "days", "mode": "feature", "noise_scale": "relative"}
    rows = []
    for space, rank in (("residuals", 10), ("latents", 20), ("random", 30)):
        for noise, draw in ((0.0, 0), (0.5, 0), (0.5, 1)):
            figures = dict.fromkeys(("stable_rank", "participation_ratio"), 3.5)
            figures |= {"rank": rank + draw, "effective_rank": rank + draw, "n_active": 9}
            where = {"space": space, "noise": noise, "draw": draw, "tolerance": "eps"}
            rows.append(about | where | figures | {"n_rows": 40, "n_points": 40})
    write_rows(folder / "rank_by_noise.csv", rows)
    return folder


def shift_run(folder: Path, low: float = 100.0, high: float = 200.0) -> Path:
    """Write what shifting latents leaves; at α = 1.5 the error changes by [low, high]."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for alpha in (0.5, 1.0, 1.5):
        about = {"concept": "days", "model": "tiny", "loss_type": "AEDP", "scale_factor": alpha}
        about |= {"protocol": "sound", "mse_original": 2000.0, "n_points": 49, "n_clusters": 7}
        change = {"mse_change": (low + high) / 2, "mse_change_low": low, "mse_change_high": high}
        rows.append({"intervention": "centroid_shift", "mse_loss": 2150.0} | about | change)
        random = {"mse_low": 2900.0, "mse_high": 3200.0, "n_draws": 39, "p": 0.025}
        rows.append({"intervention": "random_direction", "mse_loss": 3000.0} | about | random)
    write_rows(folder / "intervention_analysis_results_icd_monge.csv", rows)
    return folder


def curve_run(folder: Path) -> Path:
    """Write the event file of a `fit`."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "version_0")) as writer:
        for step in range(0, 30, 10):
            writer.add_scalar("val/mse", 100.0 - step, step)
            writer.add_scalar("val/relative_aedp", 1.0 + 0.01 * step, step)
    return folder


def comparison_run(folder: Path, low: float = -0.9) -> Path:
    """Write what `compare` leaves of six SAEs, with one correlation [low, 0.95] across them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number in range(6):
        own = {"sae": f"sae {number}", "null": NAN, "p": NAN}
        rows.append(row("two_nn", value=10.0 + number, low=9.0, high=17.0, **own))
        text = {"space": "recons", "concept": "text", "value": 0.1 * number}
        rows += [row("fvu", **own | text), row("l0", **own | text)]
    across = {"space": "across SAEs", "sae": "", "n": 6, "low": low, "high": 0.95}
    rows.append(row("two_nn~fvu", **across | {"value": 0.8, "null": NAN, "p": 0.03}))
    write_rows(folder / "results.csv", rows, COLUMNS)
    return folder


def experiment_run(folder: Path, effect: float) -> Path:
    """Write what the experiment leaves: 8 seeds in which separability moves the error."""
    from saerepgeo.experiment.cells import Cell
    from saerepgeo.experiment.verdict import control_contrasts, judge

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, Any]] = []
    doses = [(dose, "given") for dose in (-0.01, 0.0, 0.01)] + [(0.01, "shuffled")]
    for seed in range(8):
        for dose, labels in doses:
            moved = 0.0 if labels == "shuffled" else 20.0 * dose
            noise = 0.002 * float(torch.randn((), generator=generator))
            figures = {"relative_aedp": 2.0**moved, "mse": 2.0 ** (effect * moved + noise)}
            cell = Cell("fisher", dose, seed, labels)._asdict()
            rows.append({**cell, "split": "heldout_items", "concept": "days", **figures})
    write_rows(folder / "finetune_results.csv", rows)
    write_rows(folder / "verdicts.csv", [verdict.as_row() for verdict in judge(rows)])
    write_rows(folder / "contrasts.csv", control_contrasts(rows))
    return folder
