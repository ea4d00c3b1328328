"""`reproduce` and `cache`: what is found, what is run, what the exit status says."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from saerepgeo import cli
from saerepgeo.cli import cache as cli_cache
from saerepgeo.data import cache
from saerepgeo.experiment import reproduce
from saerepgeo.report.files import write_rows

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for the cases themselves, which other tests run: keeps what they are called with,
    and writes what case 2 would write."""
    calls: list[list[str]] = []

    def run(args: list[str], _: type) -> int:
        calls.append(args)
        config = yaml.safe_load(Path(args[2]).read_text())
        if "gpt2" in args[4]:
            raise ValueError("cannot reach\nthe hub")
        columns = ("Clusters", "Avg Dim")
        sides = {f"{name} {side}": 2.5 for name in columns for side in ("Resid", "Latents")}
        row = {
            "Concept": "days",
            "Model": "smollm2-135m Layer 10",
            "Protocol": "sound",
            "Procrustes Disparity": 0.25,
            "Procrustes Disparity p": 0.01,
        }
        folder = config["trainer"]["callbacks"][0]["init_args"]["dirpath"]
        write_rows(Path(folder) / "clustering_analysis_results.csv", [row | sides])
        return 0

    monkeypatch.setattr(cli, "main", run)
    return calls


def test_a_model_that_cannot_be_had_is_one_line_and_the_others_go_on(
    runs: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = str(REPOSITORY / "configs")
    where = ["--configs", configs, "--output", str(tmp_path / "here"), "--cases", "2"]
    status = reproduce.main(["--models", "gpt2-small", "smollm2-135m", *where])
    assert status == 1
    out, err = capsys.readouterr()
    assert err.splitlines() == ["gpt2-small, case 2: cannot reach the hub"]
    assert "failed: cannot reach the hub" in out
    assert "days, sound: clusters 2.5 → 2.5, dimension 2.5 → 2.5, Procrustes 0.250 (p = 0.010)" in (
        out
    )
    assert [Path(args[4]).stem for args in runs] == ["gpt2-small", "smollm2-135m"]
    assert reproduce.main(["--models", "smollm2-135m", *where]) == 0


def test_concepts_and_output_reach_every_path_of_the_config(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[list[str], Any]] = []

    def run(args: list[str], _: type) -> int:
        seen.append((args, yaml.safe_load(Path(args[2]).read_text())))
        return 3

    monkeypatch.setattr(cli, "main", run)
    monkeypatch.chdir(REPOSITORY)
    output = str(tmp_path / "elsewhere")
    assert reproduce.main(["--concepts", "days", "color", "--output", output]) == 1
    assert len(seen) == 3
    for number, (args, config) in enumerate(seen, 1):
        assert args[0] == "test"
        assert args[-1] == "--data.init_args.concepts=[days,color]"
        assert Path(args[2]).name == f"case{number}.yaml"
        text = yaml.safe_dump(config)
        assert output in text
        assert ": outputs" not in text
        assert not Path(args[2]).exists(), "left behind"


def test_an_unknown_model_and_missing_configs_say_what_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # the shipped ones are found from anywhere
    with pytest.raises(
        ValueError, match=r"there are .*, gpt2-small, .*: did you mean smollm2-135m\?$"
    ):
        reproduce.main(["--models", "smollm2"])
    with pytest.raises(ValueError, match=r"no case1\.yaml in nowhere: `--configs` must be"):
        reproduce.main(["--configs", "nowhere"])


def test_the_cache_is_shown_and_cleared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path))
    model = tmp_path / "models" / "kept.safetensors"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    cache.cached_tensors({"a": 1}, lambda: {"x": torch.zeros(2**18)})
    assert cli_cache.main([]) == 0
    assert "1.0 MiB, 1 files" in capsys.readouterr().out
    assert cli_cache.main(["--clear"]) == 0
    assert "cleared 1.0 MiB" in capsys.readouterr().out
    assert not list(tmp_path.glob("activations/*"))
    assert model.is_file()


def test_the_same_failure_is_told_once_and_a_signal_ends_the_run(
    runs: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ["--configs", str(REPOSITORY / "configs"), "--output", str(tmp_path / "here")]
    assert reproduce.main(["--models", "gpt2-small", "--cases", "1", "2", *where]) == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "gpt2-small, case 1: cannot reach the hub"
    assert err.splitlines()[1:] == ["gpt2-small, case 2: the same"]
    assert out.count("failed: cannot reach the hub") == 2

    def stopped(args: list[str], _: type) -> int:
        raise SystemExit(143)

    monkeypatch.setattr(cli, "main", stopped)
    assert reproduce.main(["--cases", "1", "2", *where]) == 143
    out, err = capsys.readouterr()
    assert err.splitlines() == ["smollm2-135m, case 1: stopped by SIGTERM"]
    assert "case 2 …" not in out
