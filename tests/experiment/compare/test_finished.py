"""`compare` goes on: what is finished is known by content; killed runs are resumed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_comparison import ONE, rows_at

from saerepgeo.experiment.compare import main, settings
from saerepgeo.experiment.compare.finished import Finished
from saerepgeo.experiment.compare.shared import Work

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
