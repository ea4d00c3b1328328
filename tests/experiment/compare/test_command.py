"""`compare`: rows per SAE, tables, a broken SAE, an SAE that reconstructs another hook."""

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from small_comparison import ONE, TWO, Row, changed, rows_at

from saerepgeo.experiment.compare import main
from saerepgeo.report.files import read_rows
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

# Lightning's advice and jsonargparse's remarks: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


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
    for hook, sae in ((ONE, "few"), (ONE, "many"), (TWO, "deep")):
        for metric in ("mse", "fvu", "cosine", "l0", "dead_fraction", "ce_recovered"):
            assert math.isfinite(own[hook, sae, "recons", metric]["value"]), metric
        for space in ("latents", "random"):
            assert own[hook, sae, space, "two_nn"]["value"] > 0
            assert math.isfinite(own[hook, sae, space, "fisher_ratio"]["low"])
        assert 0 < own[hook, sae, "latents", "fisher_ratio"]["p"] <= 1
        assert math.isnan(own[hook, sae, "random", "fisher_ratio"]["p"])
        assert own[hook, "", "residuals", "rank"]["value"] > 0
    assert own[ONE, "few", "recons", "l0"]["value"] == 2
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
    saes[1]["hook_name"] = ONE
    assert main(["--config", str(changed(config, saes=saes))]) == 0
    assert computed == ["moved"]
    files = (config.parent / "out" / "finished").glob("*.csv")
    (damaged,) = (path for path in files if ",few," in path.read_text())
    text = damaged.read_text()
    damaged.write_text(text.replace(",few,", ",fex,", 1))
    computed.clear()
    assert main(["--config", str(config)]) == 0
    assert computed == ["few"]
    assert "is damaged and is computed again" in capsys.readouterr().err


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
    given = {"path": str(config.parent / "coder"), "hook_name": ONE}
    assert main(["--config", str(changed(config, saes=[given], n_random=2))]) == 0
    rows = {(row["space"], row["metric"]): row for row in rows_at(config)}
    assert "transcoder" in rows["recons", "fvu"]["reason"]
    assert "transcoder" in rows["recons", "ce_recovered"]["reason"]
    assert rows["latents", "two_nn"]["value"] > 0
    assert 0 < rows["latents", "two_nn/beside_random"]["p"] <= 1
    assert rows["random 1", "two_nn"]["value"] > 0
