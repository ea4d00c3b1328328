"""An experiment that was stopped, killed or damaged comes to what it would have come to."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from training_process import write_config

from saerepgeo.cases.separability.module import SeparabilityModule
from saerepgeo.experiment import Cell, Experiment, main, run_cells, runner, summary
from saerepgeo.experiment.attempts import attempted
from saerepgeo.experiment.cells import (
    ITEMS,
    RECONSTRUCTION,
    SEPARABILITY,
    TEXT,
    read_result,
    write_result,
)
from saerepgeo.files import is_url, write_json
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

Fit = Callable[[Path, dict[str, Any]], int]


def result_of(about: dict[str, Any]) -> dict[str, Any]:
    """Return a whole result of a cell, of two concepts."""
    dose, seed = about["dose"], about["seed"]
    text = {name: 1.0 + 0.01 * dose**2 + 0.001 * seed for name in RECONSTRUCTION}
    points = text | {name: 2.0 + dose + 0.01 * seed for name in SEPARABILITY}
    rows = [about | {"split": TEXT, "concept": TEXT} | text]
    rows += [about | {"split": ITEMS, "concept": name} | points for name in ("months", "days")]
    return {"about": about, "rows": rows}


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> list[Fit]:
    """Stands in for `fit`: writes a whole result unless its last entry does something else."""

    def whole(path: Path, about: dict[str, Any]) -> int:
        write_json(path, result_of(about))
        return 0

    does: list[Fit] = [whole]

    def run(args: list[str], cli: type) -> int:
        text = next(a for a in args if a.startswith("--trainer.callbacks="))
        given = json.loads(text.partition("=")[2])[1]["init_args"]
        path = given["path"]
        return does[-1](path if is_url(path) else Path(path), given["about"])

    monkeypatch.setattr("saerepgeo.cli.main", run)
    monkeypatch.setattr(runner, "check_cells", lambda experiment: None)
    monkeypatch.setattr(summary, "_draw", lambda *_: None)
    monkeypatch.setattr(runner.gc, "collect", lambda: 0)  # no trainer was made: half a second each
    return does


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    base = tmp_path / "base.yaml"
    base.write_text("trainer: {max_steps: 3}\n")
    about: dict[str, Any] = {"base": str(base), "output": str(tmp_path / "out"), "n_processes": 1}
    return about | {"regularizers": ["fisher"], "doses": [-0.5, 0.5], "seeds": [0, 1]}


def run(settings: dict[str, Any]) -> int:
    path = Path(settings["base"]).with_name("experiment.yaml")
    path.write_text(yaml.safe_dump(settings))
    return main(["--config", str(path)])


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no rows": lambda result: result | {"rows": []},
    "only text": lambda result: result | {"rows": result["rows"][:1]},
    "no text": lambda result: result | {"rows": result["rows"][1:]},
    "a list": lambda result: result["rows"],
    "another cell": lambda result: result | {"about": result["about"] | {"seed": 7}},
    "rows of another cell": lambda result: (
        result | {"rows": [row | {"dose": 0.25} for row in result["rows"]]}
    ),
    "no column": lambda result: (
        result | {"rows": [{n: v for n, v in row.items() if n != "mse"} for row in result["rows"]]}
    ),
    "text for a number": lambda result: (
        result | {"rows": [row | {"mse": "low"} for row in result["rows"]]}
    ),
    "the sum of another": lambda result: result | {"sum": "0" * 32},
    "rows that are none": lambda result: result | {"rows": [1, 2, 3]},
}


@pytest.mark.parametrize("name", [*DAMAGES, "empty", "binary", "cut", "nested", "half"])
def test_a_damaged_result_is_said_and_made_again(
    fit: list[Fit], settings: dict[str, Any], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(settings) == 0
    experiment = Experiment(**settings)
    path = experiment.result_path(experiment.cells[3])
    right = path.read_text()
    if name in DAMAGES:
        write_json(path, DAMAGES[name](json.loads(right)))
    else:
        broken = {"empty": b"", "binary": bytes(range(256)), "cut": right.encode()[:200]}
        broken |= {"nested": b"[" * 100_000, "half": right.encode()[: len(right) // 2]}
        path.write_bytes(broken[name])
    assert not experiment.is_finished(experiment.cells[3])
    table = (Path(settings["output"]) / "finetune_results.csv").read_bytes()
    capsys.readouterr()
    assert run(settings) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{path} is damaged and its cell runs again: ")
    assert len(said) < 600
    assert path.read_text() == right
    assert (Path(settings["output"]) / "finetune_results.csv").read_bytes() == table


def test_a_changed_digit_of_a_result_is_noticed(tmp_path: Path) -> None:
    cell, path = Cell("fisher", 0.5, 0), tmp_path / "result.json"
    about, rows = result_of(cell._asdict()).values()
    rows[0]["seconds_per_step"] = math.nan
    write_result(path, about, rows)
    assert str(read_result(path, cell)) == str(rows)
    right = path.read_text()
    path.write_text(right.replace('"mse": 1.0025', '"mse": 1.0026'))
    with pytest.raises(ValueError, match="its `sum` is that of another content"):
        read_result(path, cell)
    write_json(path, {"about": about, "rows": rows})  # as it was written once
    assert len(read_result(path, cell)) == 3


def test_a_result_that_lacks_a_concept_of_its_seed_gives_no_verdict(
    fit: list[Fit], settings: dict[str, Any]
) -> None:
    assert run(settings) == 0
    experiment = Experiment(**settings)
    path = experiment.result_path(experiment.cells[1])
    result = json.loads(path.read_text())
    write_json(path, result | {"rows": result["rows"][:-1]})
    with pytest.raises(ValueError, match=rf"{path.parent.name}.* lacks .*days of {ITEMS}.*delete"):
        run(settings)


def test_damaged_failures_do_not_stop_an_experiment(
    fit: list[Fit], settings: dict[str, Any]
) -> None:
    experiment = Experiment(**settings)
    folder = experiment.folder(experiment.cells[0])
    folder.mkdir(parents=True)
    (folder / "failures.txt").write_bytes(b"attempt \xff\xfe\n\0" * 5)
    assert run(settings) == 0
    assert experiment.finished == experiment.cells


def test_run_again_tries_failed_cells_again(
    fit: list[Fit], settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    n_tried = []

    def fails(path: Path, about: dict[str, Any]) -> int:
        if about["dose"] > 0:
            n_tried.append(about)
            raise OSError("the disk is full")
        return fit[0](path, about)

    fit.append(fails)
    with pytest.raises(ValueError, match=r"2 of 6 cells .*the disk is full; see failures\.txt in"):
        run(settings)
    assert len(n_tried) == 4
    fit.pop()
    assert run(settings) == 0


@pytest.mark.parametrize("way", ["status", "exit", "lightning", "at the end"])
def test_a_signal_stops_the_experiment_and_is_no_failure(
    fit: list[Fit], settings: dict[str, Any], way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(path: Path, about: dict[str, Any]) -> int:
        if way == "exit":
            raise SystemExit(143)
        if way == "lightning":
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                raise SystemExit(1)  # noqa: B904  (as Lightning does)
        if way == "at the end":
            fit[0](path, about)
        return 143

    fit.append(stopped)
    assert run(settings) == (130 if way == "lightning" else 143)
    err = capsys.readouterr().err
    assert err.count("interrupted in none_+0_given_seed0") == 1
    assert not list(Path(settings["output"]).rglob("failures.txt"))
    assert len(list(Path(settings["output"]).rglob("result.json"))) == (way == "at the end")


def test_cells_that_ended_their_process_come_last(fit: list[Fit], settings: dict[str, Any]) -> None:
    experiment = Experiment(**settings)
    folder = experiment.folder(experiment.cells[0])
    with suppress(KeyError), attempted(folder):
        raise KeyError  # an end of any other kind than a death
    assert not list(folder.iterdir())
    (folder / "running").write_text("4")
    order = []

    def notes(path: Path, about: dict[str, Any]) -> int:
        order.append(Cell(**about))
        return fit[0](path, about)

    fit.append(notes)
    assert run(settings) == 0
    assert order == [*experiment.cells[1:], experiment.cells[0]]
    assert "ended by a signal" in (folder / "failures.txt").read_text()
    assert not (folder / "running").exists()


def test_results_are_files_at_a_url(fit: list[Fit], settings: dict[str, Any]) -> None:
    settings |= {"output": "memory://bucket/deep/"}
    assert run(settings) == 0
    store, experiment = fsspec.filesystem("memory"), Experiment(**settings)
    (name,) = {Path(p).name for p in store.glob("/bucket/deep/cells/fisher_-0.5*seed0*")}
    path = f"/bucket/deep/cells/{name}/result.json"
    written = store.cat(path)
    assert store.exists("/bucket/deep/finetune_results.csv")
    store.pipe(path, written[:200])
    assert len(experiment.finished) == 5
    assert run(settings) == 0
    assert store.cat(path) == written
    assert not Path("memory:").exists()  # taken for a local path


def test_a_second_run_on_the_same_folder_is_refused(
    fit: list[Fit], settings: dict[str, Any]
) -> None:
    def another(path: Path, about: dict[str, Any]) -> int:
        with pytest.raises(ValueError, match=r"`output` .*out is in use by another run"):
            run(settings)
        return fit[0](path, about)

    fit.append(another)
    assert run(settings) == 0
    fit.pop()
    assert run(settings) == 0


def test_other_contents_of_files_are_other_cells(settings: dict[str, Any], tmp_path: Path) -> None:
    prompts, lm = tmp_path / "prompts.json", tmp_path / "lm"
    lm.mkdir()
    (lm / "model.safetensors").write_bytes(b"one")
    prompts.write_text("{}")
    options = {"data.init_args.prompts": str(prompts), "data.init_args.lm": str(lm)}

    def folder() -> Path:
        experiment = Experiment(**settings | {"settings": options})
        return experiment.folder(experiment.cells[0])

    first = folder()
    assert folder() == first
    prompts.write_text("[]")
    second = folder()
    (lm / "model.safetensors").write_bytes(b"two")
    assert len({first, second, folder()}) == 3


@pytest.fixture
def whole_runs(settings: dict[str, Any], tmp_path: Path, tiny_data: dict[str, Any]) -> Experiment:
    """Return an experiment of real, small cells, in which all items take part in each step."""
    save_sae(new_sae(d_in=32, d_sae=64, k=4), tmp_path / "sae")
    data = tiny_data | {"heldout_items": 0.3, "concept_fraction": 0.75, "batch_size": 128}
    config = yaml.safe_load(write_config(tmp_path, data, tmp_path / "sae", 6).read_text())
    Path(settings["base"]).write_text(yaml.safe_dump(config))
    # its controls run this regularizer as well, and are the first cells
    more = {"regularizers": ["gromov_wasserstein"], "doses": [0.5], "seeds": [0]}
    return Experiment(**settings | more | {"checkpoint_every": 2, "n_contexts": 0})


def rows_of(experiment: Experiment) -> str:
    rows = [row for cell in experiment.cells for row in experiment.rows(cell)]
    return json.dumps([{n: v for n, v in row.items() if n != "seconds_per_step"} for row in rows])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_resumed_cells_come_to_the_same_rows(
    whole_runs: Experiment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_cells(whole_runs)
    rows, steps = rows_of(whole_runs), []
    step = SeparabilityModule.on_before_optimizer_step

    def dies(self: Any, optimizer: Any) -> None:
        steps.append(self.global_step)
        if self.global_step == 5 and steps.count(5) == 1:
            raise RuntimeError("killed")
        step(self, optimizer)

    cell = whole_runs.cells[1]
    folder = whole_runs.folder(cell)

    # killed after the last checkpoint and before the result: nothing is left to train
    monkeypatch.setattr(SeparabilityModule, "on_before_optimizer_step", dies)
    whole_runs.result_path(cell).unlink()
    run_cells(whole_runs)
    assert rows_of(whole_runs) == rows
    assert steps == []

    # all checkpoints damaged: from the start; then killed in the middle, and on from step 4
    whole_runs.result_path(cell).unlink()
    for path in (folder / "checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-1000])
    run_cells(whole_runs)
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5]
    assert rows_of(whole_runs) == rows
    assert "starting anew" in caplog.text
