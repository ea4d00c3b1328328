"""The experiment: its grid, and whole small runs on a small model."""

import gc
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer

from saerepgeo.experiment import Cell, Experiment, main, run_cells, runner
from saerepgeo.experiment.summary import shuffled_lines
from saerepgeo.report.files import read_rows
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

LIGHTNINGS_ADVICE = pytest.mark.filterwarnings("default")
"""Whole runs of `fit` in this process: Lightning warns of its own use of jsonargparse, and such."""


@pytest.fixture
def base(tiny_data, tmp_path) -> Path:
    save_sae(new_sae(d_in=32, d_sae=64, k=4), tmp_path / "sae")
    config = {
        "trainer": {"max_steps": 3, "max_epochs": -1, "accelerator": "cpu"},
        "model": {
            "class_path": "saerepgeo.cases.separability.module.SeparabilityModule",
            "init_args": {"sae": {"path": str(tmp_path / "sae")}, "lr": 1e-3},
        },
        "data": {
            "class_path": "saerepgeo.data.ActivationDataModule",
            "init_args": tiny_data | {"heldout_items": 0.3},
        },
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def settings(base, tmp_path):
    return {
        "base": str(base),
        "output": str(tmp_path / "out"),
        "regularizers": ["fisher"],
        "doses": [-0.5, 0.5],
        "seeds": [0, 1, 2],
        "checkpoint_every": 1,
        "n_contexts": 2,
        "n_processes": 1,
    }


def test_every_seed_has_its_control_and_every_dose(settings):
    experiment = Experiment(**settings | {"shuffled_doses": [0.5]})
    cells = experiment.cells
    assert len(cells) == 3 * (1 + 2 + 1)
    assert len({experiment.folder(cell) for cell in cells}) == len(cells)
    for seed in (0, 1, 2):
        assert sum(c.dose == 0 for c in cells if c.seed == seed) == 1


def test_cells_of_a_seed_differ_in_nothing_but_the_regularizer(settings):
    experiment = Experiment(**settings)
    commands = [experiment.command(c) for c in experiment.cells if c.seed == 1]
    names = ("model.init_args.weight", "model.init_args.direction", "trainer.callbacks")
    names += ("trainer.default_root_dir",)
    kept = {
        tuple(a for a in command if not a.startswith(tuple(f"--{n}=" for n in names)))
        for command in commands
    }
    assert len(kept) == 1


@LIGHTNINGS_ADVICE
def test_finished_cells_leave_no_trainer_behind(settings):
    """A worker runs many cells in one process: what a cell held must be free when it ends."""
    gc.collect()
    before = sum(isinstance(o, Trainer) for o in gc.get_objects())
    run_cells(Experiment(**settings | {"seeds": [0], "n_contexts": 0}))
    gc.collect()
    after = sum(isinstance(o, Trainer) for o in gc.get_objects())
    assert after <= before + 1  # of three cells: Lightning may hold on to its last


def test_another_sae_under_the_same_name_is_other_cells(settings, base):
    one = Experiment(**settings)
    folders = {one.folder(cell) for cell in one.cells}
    assert folders == {Experiment(**settings).folder(cell) for cell in one.cells}
    sae = new_sae(d_in=32, d_sae=64, k=4, seed=1)
    save_sae(sae, base.parent / "new")
    (base.parent / "new" / "sae_weights.safetensors").replace(
        base.parent / "sae" / "sae_weights.safetensors"
    )
    other = Experiment(**settings)
    assert not folders & {other.folder(cell) for cell in other.cells}


def test_other_settings_are_other_cells(settings):
    one = Experiment(**settings)
    other = Experiment(**settings | {"settings": {"trainer.max_steps": 4}})
    assert one.folder(one.cells[0]) != other.folder(other.cells[0])
    Path(settings["base"]).write_text(Path(settings["base"]).read_text() + "# more\n")
    assert Experiment(**settings).folder(one.cells[0]) != one.folder(one.cells[0])


def test_settings_of_the_command_line_replace_those_of_the_file(settings):
    nested = {"trainer.max_steps": 3, "trainer": {"max_steps": "5", "precision": "32-true"}}
    command = Experiment(**settings | {"settings": nested}).command(Cell("fisher", 0.5, 0))
    assert "--trainer.max_steps=5" in command
    assert "--trainer.precision=32-true" in command
    assert not any(a.startswith("--trainer={") or "max_steps=3" in a for a in command)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("doses", [0.0, 1.0]),
        ("doses", []),
        ("seeds", [1, 1]),
        ("regularizers", ["aedp", "aedp"]),
        ("base", "no.yaml"),
        ("shuffled_doses", [float("nan")]),
    ],
)
def test_settings_that_make_no_grid_are_refused(settings, name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Experiment(**settings | {name: value})


def test_cells_that_begin_together_are_of_several_seeds(settings):
    def order(n_processes: int) -> list[tuple[int, float]]:
        given = Experiment(**settings | {"n_processes": n_processes})
        return [(cell.seed, cell.dose) for cell in runner._ordered(given)]

    whole = [(seed, dose) for seed in (0, 1, 2) for dose in (0.0, -0.5, 0.5)]
    assert order(1) == whole
    assert order(2)[:4] == [(0, 0.0), (1, 0.0), (0, -0.5), (1, -0.5)]
    assert sorted(order(2)) == sorted(whole)


@pytest.mark.slow
@LIGHTNINGS_ADVICE
def test_an_experiment_runs_judges_and_runs_nothing_twice(settings, tmp_path, capsys):
    config = tmp_path / "experiment.yaml"
    config.write_text(yaml.safe_dump(settings | {"shuffled_doses": [0.5]}))
    assert main(["--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "fisher, pooled: undecided" in out
    folder = Path(settings["output"])
    rows = read_rows(folder / "finetune_results.csv")
    splits = {row["split"] for row in rows}
    assert splits == {"text", "train", "heldout_prompts", "heldout_items"}
    assert len(rows) == 12 * (1 + 3 * 2)
    text = next(row for row in rows if row["split"] == "text")
    for name in ("mse", "fvu", "l0", "dead_fraction", "ce_recovered", "kl_recovered"):
        assert float(text[name]) == float(text[name])
    assert float(text["l0"]) == 4  # TopK: as many active latents at every dose
    for name in ("verdict.json", "verdicts.csv", "contrasts.csv", "pareto.png"):
        assert (folder / name).is_file()
    experiment = Experiment(**settings | {"shuffled_doses": [0.5]})
    before = {p: p.stat().st_mtime_ns for p in map(experiment.result_path, experiment.cells)}
    assert main(["--config", str(config)]) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}


@LIGHTNINGS_ADVICE
def test_a_cell_that_fails_loses_no_other_and_is_not_tried_for_ever(settings, capsys):
    experiment = Experiment(
        **settings | {"seeds": [0], "settings": {"model.init_args.lr": 1e30}, "n_contexts": 0}
    )
    run_cells(experiment)
    failures = [experiment.folder(cell) / "failures.txt" for cell in experiment.cells]
    assert all(path.read_text().count("attempt ") == 2 for path in failures)
    assert all("lower `lr`" in path.read_text() for path in failures)
    assert "failed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.thorough
@LIGHTNINGS_ADVICE
def test_a_killed_cell_resumes_and_comes_to_the_same_figures(settings, tmp_path):
    settings |= {"seeds": [0], "doses": [0.5], "settings": {"trainer.max_steps": 40}}
    whole = Experiment(**settings | {"output": str(tmp_path / "whole")})
    run_cells(whole)
    config = tmp_path / "experiment.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "saerepgeo", "experiment", f"--config={config}"]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    broken = Experiment(**settings)
    control = broken.folder(broken.cells[0])
    while not (control / "checkpoints" / "last.ckpt").is_file():
        assert worker.poll() is None
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not broken.result_path(broken.cells[0]).is_file()
    assert any(a.startswith("--ckpt_path=") for a in broken.command(broken.cells[0]))
    run_cells(broken)
    for cell in whole.cells:
        a, b = (json.loads(e.result_path(cell).read_text())["rows"] for e in (whole, broken))
        for row_a, row_b in zip(a, b, strict=True):
            row_a.pop("seconds_per_step", None), row_b.pop("seconds_per_step", None)
            assert row_a == row_b


def test_shuffled_labels_are_told_beside_true_ones():
    about = {"split": "heldout_items", "figure": "mse", "regularizer": "aedp", "dose": 0.1}
    contrasts = [
        about | {"labels": labels, "against": against, "difference": value}
        for labels, against, value in (
            ("given", "dose 0", 0.1),
            ("given", "dose 0", 0.3),
            ("given", "shuffled labels", 9.0),
            ("shuffled", "dose 0", 0.05),
        )
    ]
    (line,) = shuffled_lines(contrasts, "mse")
    assert "+0.200 with true labels" in line
    assert "+0.050 with shuffled" in line
    assert shuffled_lines(contrasts[:3], "mse") == []
