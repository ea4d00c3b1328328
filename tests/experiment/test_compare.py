"""`compare`: rows per SAE, what is shared and kept, a broken SAE, a killed run, figures across."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from scipy import stats

from saerepgeo.cases.statistics import spearman
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.experiment.compare import across, command, main, one_sae, settings
from saerepgeo.experiment.compare.finished import Finished
from saerepgeo.experiment.compare.listing import ComparedSAE
from saerepgeo.experiment.compare.table import printed_across
from saerepgeo.report.files import read_rows
from saerepgeo.report.results import read_results
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.registry import matching_saes

REPOSITORY = Path(__file__).parents[2]
# Lightning's advice and jsonargparse's remarks: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")
METRICS = ("SpectralRanks", "TwoNN", "FisherRatio", "ProcrustesDisparity")
FEW = {"n_permutations": 7, "n_nulls": 3, "n_extreme": 2, "n_subsamples": 3, "n_contexts": 2}
OURS = ("hook_name", "test_with_padding")
Row = dict[str, Any]


@pytest.fixture
def config(tmp_path: Path, few_prompts: dict[str, Any]) -> Path:
    """A comparison of two SAEs of one hook and one of another."""
    saes = []
    for name, k, layer in (("few", 2, 1), ("many", 8, 1), ("deep", 4, 2)):
        torch.manual_seed(k)
        metadata = {"hook_name": f"blocks.{layer}.hook_resid_post"}
        save_sae(new_sae("topk", d_in=32, d_sae=96, k=k, seed=k), tmp_path / name, metadata)
        saes.append({"path": str(tmp_path / name)})
    given = FEW | {
        "saes": saes,
        "output": str(tmp_path / "out"),
        "metrics": [{"class_path": f"saerepgeo.metrics.{name}"} for name in METRICS],
        "data": {name: value for name, value in few_prompts.items() if name not in OURS},
    }
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def rows_at(config: Path) -> list[Row]:
    return read_results(config.parent / "out" / "results.csv")


def changed(config: Path, **new: Any) -> Path:
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | new))
    return config


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the SAEs that are computed, in order."""
    names: list[str] = []

    def noted(module: one_sae.OneSAE, *rest: Any) -> list[Row]:
        names.append(*module.sae_names)
        return one_sae.rows_of(module, *rest)

    monkeypatch.setattr(command, "rows_of", noted)
    return names


def check_saebench(folder: Path, own: dict[Any, Row]) -> None:
    """What SAEBench's own classes read, and our schemas, has the figures of the rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_bench.evals.core.eval_output import CoreEvalOutput

    for kind in ("core", "representation_geometry"):
        files = sorted(path.name for path in (folder / kind).iterdir())
        ends = [f"{name}_custom_sae_eval_results.json" for name in ("deep", "few", "many")]
        assert files == sorted([*ends, f"eval_output_schema_{kind}.json"])
        schema = Draft202012Validator(
            json.loads((folder / kind / f"eval_output_schema_{kind}.json").read_text())
        )
        for end in ends:
            schema.validate(json.loads((folder / kind / end).read_text()))
    path = folder / "core" / "few_custom_sae_eval_results.json"
    found = TypeAdapter(CoreEvalOutput).validate_json(path.read_bytes())
    of_text = {m: r["value"] for (_, sae, s, m), r in own.items() if (sae, s) == ("few", "recons")}
    metrics = found.eval_result_metrics
    assert metrics.sparsity.l0 == 2
    assert metrics.reconstruction_quality.explained_variance == 1 - of_text["fvu"]
    assert metrics.model_performance_preservation.ce_loss_score == of_text["ce_recovered"]
    assert metrics.token_stats.total_tokens_eval_reconstruction > 0
    assert found.sae_cfg_dict["d_sae"] == 96
    path = folder / "representation_geometry" / path.name
    content = json.loads(path.read_text())
    (row,) = (r for (_, *key), r in own.items() if key == ["few", "latents", "fisher_ratio"])
    latents = content["eval_result_metrics"][f"concept_{row['concept']}"]
    assert latents["fisher_ratio"] == row["value"]
    assert (latents["fisher_ratio_ci_low"], latents["fisher_ratio_p"]) == (row["low"], row["p"])


def test_every_sae_has_its_rows_and_what_is_finished_is_not_computed_again(
    config: Path, computed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(config)]) == 0
    assert computed == ["few", "many", "deep"]
    out = capsys.readouterr().out
    assert "deep, text: 6/6, 0:00 left" in out
    assert "3 pairs, 5 needed" in out
    rows = rows_at(config)
    own = {(r["hook"], r["sae"], r["space"], r["metric"]): r for r in rows}
    one, two = "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"
    for hook, sae in ((one, "few"), (one, "many"), (two, "deep")):
        for metric in ("mse", "fvu", "cosine", "l0", "dead_fraction", "ce_recovered"):
            assert math.isfinite(own[hook, sae, "recons", metric]["value"]), metric
        for space in ("latents", "random"):
            assert own[hook, sae, space, "two_nn"]["value"] > 0
            assert math.isfinite(own[hook, sae, space, "fisher_ratio"]["low"])
        assert 0 < own[hook, sae, "latents", "fisher_ratio"]["p"] <= 1
        assert math.isnan(own[hook, sae, "random", "fisher_ratio"]["p"])
        assert own[hook, "", "residuals", "rank"]["value"] > 0
    assert own[one, "few", "recons", "l0"]["value"] == 2
    assert sum(r["space"] == "residuals" and r["metric"] == "rank" for r in rows) == 2
    wide = read_rows(config.parent / "out" / "compare.csv")
    assert [(r["sae"], r["space"]) for r in wide if r["space"] == "latents"] == [
        (name, "latents") for name in computed
    ]
    assert (config.parent / "out" / "metrics_by_fvu.png").is_file()
    check_saebench(config.parent / "out" / "saebench", own)
    # again, under another name and path: nothing is computed
    (config.parent / "many").rename(config.parent / "moved")
    saes = yaml.safe_load(config.read_text())["saes"]
    saes[1] = {"path": str(config.parent / "moved")}
    before = [row | {"sae": row["sae"].replace("many", "moved")} for row in rows]
    computed.clear()
    assert main(["--config", str(changed(config, saes=saes))]) == 0
    assert computed == []
    assert str(rows_at(config)) == str(before)
    # another SAE in its place
    save_sae(new_sae("topk", d_in=32, d_sae=96, k=8, seed=9), config.parent / "moved")
    saes[1]["hook_name"] = one
    assert main(["--config", str(changed(config, saes=saes))]) == 0
    assert computed == ["moved"]
    files = (config.parent / "out" / "finished").glob("*.csv")
    (damaged,) = (path for path in files if ",few," in path.read_text())
    damaged.write_text(damaged.read_text()[:-30])
    computed.clear()
    assert main(["--config", str(config)]) == 0
    assert computed == ["few"]
    assert "is damaged and is computed again" in capsys.readouterr().err


def test_settings_that_matter_are_in_the_name_of_what_is_finished(config: Path) -> None:
    def path(*options: str) -> Path:
        comparison, given, metrics = settings.parse(["--config", str(config), *options])
        data = ActivationDataModule(**given, hook_name="blocks.1.hook_resid_post")
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


def test_shared_residuals_change_no_figure(config: Path) -> None:
    """The second SAE of a hook alone, its residuals its own, has the rows that it has in a list."""
    assert main(["--config", str(config)]) == 0
    shared = [row for row in rows_at(config) if row["sae"] == "many"]
    alone = [{"path": str(config.parent / "many")}]
    changed(config, saes=alone, output=str(config.parent / "alone"))
    assert main(["--config", str(config)]) == 0
    found = read_results(config.parent / "alone" / "results.csv")
    assert shared
    assert str([row for row in found if row["sae"] == "many"]) == str(shared)


def test_a_broken_sae_is_named_and_the_others_are_done(
    config: Path, computed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "few" / "training" / "sae_weights.safetensors").write_bytes(b"nothing")
    shutil.rmtree(config.parent / "deep")
    assert main(["--config", str(config)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert [line.split(" is left out")[0] for line in errors] == [
        "error: SAE deep",
        "error: SAE few",
    ]
    assert {row["sae"] for row in rows_at(config)} == {"", "many"}
    assert any(row["space"] == "residuals" for row in rows_at(config))


def test_a_transcoder_has_figures_of_its_latents_and_none_of_the_residuals(config: Path) -> None:
    from sae_lens.registry import get_sae_class

    sae_class, config_class = get_sae_class("transcoder")
    sae = sae_class(config_class(d_in=32, d_sae=64, d_out=32, apply_b_dec_to_input=False))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    sae.save_model(config.parent / "coder")
    given = {"path": str(config.parent / "coder"), "hook_name": "blocks.1.hook_resid_post"}
    assert main(["--config", str(changed(config, saes=[given], n_random=2))]) == 0
    rows = {(row["space"], row["metric"]): row for row in rows_at(config)}
    assert "transcoder" in rows["recons", "fvu"]["reason"]
    assert "transcoder" in rows["recons", "ce_recovered"]["reason"]
    assert rows["latents", "two_nn"]["value"] > 0
    assert 0 < rows["latents", "two_nn/beside_random"]["p"] <= 1
    assert rows["random 1", "two_nn"]["value"] > 0


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


def test_spearman_is_scipys_and_its_interval_covers() -> None:
    generator = np.random.default_rng(0)
    n_covered = 0
    for seed in range(60):
        pairs = generator.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 40)
        x, y = np.round(pairs, 1).T.tolist()  # with ties
        estimate, interval = spearman(x, y, seed=seed, n_draws=400)
        assert float(estimate) == pytest.approx(stats.spearmanr(x, y).statistic)
        truth = 6 / math.pi * math.asin(0.6 / 2)
        n_covered += interval.low <= truth <= interval.high
    assert n_covered >= 51
    estimate, interval = spearman([1.0, 2.0, 3.0, math.nan], [1.0, 2.0, 3.0, 4.0])
    assert (estimate.reason, estimate.n_used, estimate.n_dropped) == ("3 pairs, 5 needed", 3, 1)
    assert (
        spearman([1.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])[0].reason == "equal values on one side"
    )


def test_figures_across_saes_are_of_one_hook_and_of_all() -> None:
    generator = np.random.default_rng(1)
    rows: list[Row] = []
    for number in range(12):
        about = {"model": "m", "hook": f"h{number % 2}", "sae": f"s{number}"}
        fvu = float(generator.random())
        for concept, space, metric, value in (
            ("text", "recons", "fvu", fvu),
            ("text", "recons", "l0", 32.0),
            ("days", "latents", "two_nn", 3 - fvu),
            ("days", "latents", "n_points", 7.0),
            ("days", "random", "two_nn", 1.0),
        ):
            rows.append(
                about | {"concept": concept, "space": space, "metric": metric} | {"value": value}
            )
    found = {(r["hook"], r["concept"], r["metric"]): r for r in across.across_saes(rows)}
    for hook, n in (("h0", 6), ("h1", 6), ("all hooks", 12)):
        row = found[hook, "days", "two_nn~fvu"]
        assert (row["value"], row["n"], row["sae"]) == (pytest.approx(-1), n, "")
        assert found[hook, "days", "two_nn~l0"]["reason"] == "equal values on one side"
    assert not any("n_points" in metric for _, _, metric in found)
    lines = printed_across(list(found.values())).splitlines()
    assert lines[0] == "3 of 3 rank correlations have an interval without 0"
    assert lines[2].split()[:4] == ["days", "two_nn~fvu", "h0", "-1"]
    assert printed_across([]) == "no figures across SAEs: none on held-out text"


def test_releases_by_regular_expression() -> None:
    found = matching_saes("gpt2-small-res-jb", r"blocks\.(8|9)\.hook_resid_pre")
    assert found == [("gpt2-small-res-jb", f"blocks.{n}.hook_resid_pre") for n in (8, 9)]
    assert len(matching_saes(r"pythia-70m-deduped-(res|mlp)-sm", r"blocks\.5\..*")) == 2
    exact = "blocks.8.hook_resid_pre"
    assert matching_saes("gpt2-small-res-jb", exact) == [("gpt2-small-res-jb", exact)]
    assert matching_saes("owner/name", "folder") == [("owner/name", "folder")]
    with pytest.raises(ValueError, match=r"the nearest of 13 are: blocks\.8"):
        matching_saes("gpt2-small-res-jb", "blocks.8.hook_resid_prr")
    with pytest.raises(ValueError, match=r"nearest registered are: .*gpt2-small-res-jb"):
        matching_saes("gpt2-small-res-jbb", ".*")


def test_the_shipped_configuration_is_a_valid_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    comparison, data, _ = settings.parse(["--config", "configs/compare.yaml"])
    assert data["concepts"] == ["months", "days", "elements"]
    assert all(isinstance(each, ComparedSAE) for each in comparison.saes)
    own = ["--saes", "[{path: a}, {path: b}]"]
    comparison, *_ = settings.parse(["--config", "configs/compare.yaml", *own])
    assert comparison.saes == [ComparedSAE(path="a"), ComparedSAE(path="b")]
    first = Path("configs/compare.yaml").read_text().splitlines()[0]
    assert first == "# python -m saerepgeo compare --config configs/compare.yaml"
