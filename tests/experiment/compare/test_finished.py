"""`compare` goes on: what is finished is known by content; killed runs are resumed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
import yaml
from small_comparison import ONE, changed, metrics, rows_at

from saerepgeo.experiment.compare import main, settings
from saerepgeo.experiment.compare.finished import Finished
from saerepgeo.experiment.compare.shared import Work
from saerepgeo.files import read_text, write_bytes
from saerepgeo.report.results import COLUMNS, read_results

# Lightning's advice and jsonargparse's remarks: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


def test_settings_that_matter_are_in_the_name_of_what_is_finished(config: Path) -> None:
    def path(*options: str) -> Path:
        comparison, given, metrics = settings.parse(["--config", str(config), *options])
        data = Work(comparison, given, ()).data(ONE)
        return Finished(comparison, data, metrics).path("an SAE")

    plain = path()
    assert path("--data.batch_size", "32", "--accelerator", "cpu") == plain
    for option, value in (
        *(("--seed", "1"), ("--n_nulls", "4"), ("--n_extreme", "0"), ("--n_contexts", "3")),
        *(("--data.lm_dtype", "bfloat16"), ("--data.validation_contexts", "7")),
        ("--metrics", "[saerepgeo.metrics.TwoNN]"),
    ):
        assert path(option, value) != plain, option
    prompts = Path(yaml.safe_load(config.read_text())["data"]["prompts"])
    prompts.write_text(prompts.read_text().replace("It rains", "It snows"))
    assert path() != plain


@pytest.mark.parametrize("store", ["out", "memory://finished"])
def test_damaged_rows_are_noticed(
    config: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = store if "://" in store else str(config.parent / store)
    comparison, given, metrics = settings.parse(["--config", str(config), "--output", output])
    finished = Finished(comparison, Work(comparison, given, ()).data(ONE), metrics)
    assert finished.rows("an SAE", "new") is None
    row = dict.fromkeys(COLUMNS, "") | {"sae": "old", "value": 0.1234, "n": 1, "seed": 0}
    row |= dict.fromkeys(("low", "high", "null", "p"), 0.5) | {"reason": None}
    residuals = row | {"sae": "", "reason": "of two\nlines"}
    finished.keep("an SAE", [residuals, row])
    assert finished.rows("an SAE", "new") == [residuals, row | {"sae": "new"}]
    assert capsys.readouterr().err == ""
    path = finished.path("an SAE")
    whole = read_text(path)
    for damaged in (whole.replace("0.1234", "0.1235"), whole[:-30], whole[:-1] + "0", ""):
        write_bytes(path, damaged.encode())
        assert finished.rows("an SAE", "new") is None
        assert f"{path} is damaged and is computed again" in capsys.readouterr().err


def test_results_may_lie_at_a_url(config: Path, computed: list[str]) -> None:
    given = yaml.safe_load(config.read_text())
    few = {"n_random": 0, "n_contexts": 0, "saes": given["saes"][:1]}
    few |= {"metrics": metrics("SpectralRanks"), "output": "memory://of/comparison/"}
    assert main(["--config", str(changed(config, **few))]) == 0
    assert computed == ["few"]
    store = fsspec.filesystem("memory")
    names = {path.rpartition("/")[2] for path in store.ls("/of/comparison", detail=False)}
    pictures = {f"metrics_by_{name}.{end}" for name in ("fvu", "l0") for end in ("png", "svg")}
    assert names == {"results.csv", "compare.csv", "finished", "saebench"} | pictures
    assert len(store.glob("/of/comparison/saebench/*/few_*_eval_results.json")) == 2
    rows = read_results("memory://of/comparison/results.csv")
    assert {row["space"] for row in rows} >= {"residuals", "latents", "recons"}
    computed.clear()
    assert main(["--config", str(config)]) == 0
    assert computed == []
    assert str(read_results("memory://of/comparison/results.csv")) == str(rows)


@pytest.mark.slow
def test_a_killed_run_goes_on_after_the_last_whole_sae(config: Path, computed: list[str]) -> None:
    finished = config.parent / "out" / "finished"
    environment = os.environ | {"JSONARGPARSE_DEPRECATION_WARNINGS": "off"}
    arguments = [sys.executable, "-m", "saerepgeo", "compare", "--config", str(config)]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE) as process:
        until = time.monotonic() + 120
        while not list(finished.glob("*.csv")) and time.monotonic() < until:
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    first = {path: path.stat().st_mtime_ns for path in finished.glob("*.csv")}
    assert main(["--config", str(config)]) == 0
    assert "few" not in computed
    assert computed[-1] == "deep"
    assert {path: path.stat().st_mtime_ns for path in first} == first
    resumed = rows_at(config)
    shutil.rmtree(config.parent / "out")
    assert main(["--config", str(config)]) == 0
    for row, other in zip(rows_at(config), resumed, strict=True):
        for name, value in row.items():
            expected = other[name]
            if isinstance(value, float):  # threads move last digits
                expected = pytest.approx(expected, rel=1e-9, nan_ok=True)
            assert value == expected, (row, name)
