"""`core` files: SAEBench's own classes read them, and its own code has the same figures."""

import json
import math
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from saerepgeo.experiment.compare.core_figures import CoreFigures, weight_figures
from saerepgeo.report.saebench import EvaluatedSAE, core_evaluation, write_evaluations
from saerepgeo.report.saebench.core import CORE, SOURCES
from saerepgeo.sae.io.build import new_sae

Row = dict[str, Any]
SAE = EvaluatedSAE("mine", {"d_in": 8, "d_sae": 24})
CONFIG = {
    "model_name": "a model",
    "llm_dtype": "auto",
    "dataset": "sample",
    "context_size": 16,
    "n_eval_sparsity_variance_batches": 4,
    "seed": 0,
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    """SAEBench's output classes alone."""
    with warnings.catch_warnings():  # of the way in which it declares validators
        warnings.simplefilter("ignore")
        from sae_bench.evals.core.eval_output import CoreEvalOutput

    from pydantic import TypeAdapter

    return TypeAdapter(CoreEvalOutput)


def rows(**undefined: str) -> list[Row]:
    """One row for each metric of `core`, its value unlike every other; reasons by metric."""
    metrics = [source.metric for *_, sources in SOURCES.values() for source in sources]
    about = {"sae": "mine", "space": "recons", "n": 30, "reason": None}
    found = [about | {"metric": m, "value": 0.01 * (n + 1)} for n, m in enumerate(metrics)]
    return [
        row | {"value": math.nan, "reason": undefined[row["metric"]]}
        if row["metric"] in undefined
        else row
        for row in found
    ]


def written(folder: Path, *saes: tuple[EvaluatedSAE, list[Row]]) -> list[Path]:
    evaluations = [core_evaluation(sae, own, CONFIG) for sae, own in saes]
    write_evaluations(folder, CORE, evaluations)
    return sorted(folder.glob("*_eval_results.json"))


def test_saebench_reads_every_field(theirs: Any, tmp_path: Path) -> None:
    (path,) = written(tmp_path, (SAE, rows()))
    assert path.name == "mine_custom_sae_eval_results.json"
    content, found = json.loads(path.read_text()), theirs.validate_json(path.read_bytes())
    # nothing is dropped, and nothing is a default of theirs
    assert theirs.dump_python(found) == content
    metrics = found.eval_result_metrics
    values = {row["metric"]: row["value"] for row in rows()}
    assert metrics.reconstruction_quality.explained_variance == 1 - values["fvu"]
    assert metrics.reconstruction_quality.cossim == values["cosine"]
    assert metrics.model_performance_preservation.ce_loss_score == values["ce_recovered"]
    assert metrics.model_behavior_preservation.kl_div_with_ablation == values["kl_zero"]
    assert metrics.misc_metrics.frac_alive == 1 - values["dead_fraction"]
    assert metrics.token_stats.total_tokens_eval_reconstruction == 30 * 16
    assert metrics.token_stats.total_tokens_eval_sparsity_variance == 30
    assert found.sae_lens_release_id == "mine"
    assert found.sae_cfg_dict["architecture"] == "standard"


def test_categories_and_fields_are_saebenchs_own(theirs: Any) -> None:
    schema = theirs.json_schema()
    definitions = schema["$defs"]

    def properties(name: str) -> dict[str, Any]:
        return definitions[schema["properties"][name]["$ref"].split("/")[-1]]["properties"]

    expected = {
        name: set(definitions[each["$ref"].split("/")[-1]]["properties"])
        for name, each in properties("eval_result_metrics").items()
    }
    ours = {each.name: {field.name for field in each.fields} for each in CORE.categories}
    assert ours == expected
    assert {field.name for field in CORE.config} == set(properties("eval_config"))
    assert set(CORE.json_schema()["properties"]) == set(schema["properties"])


def test_an_undefined_figure_is_null_with_its_reason_and_refused_in_that_field_alone(
    theirs: Any, tmp_path: Path
) -> None:
    """SAEBench has -1 there, which is a number; its classes take no null for any float."""
    from pydantic import ValidationError

    own = [row for row in rows(ce_recovered="nothing is lost") if row["metric"] != "l1"]
    (path,) = written(tmp_path, (SAE, own))
    content = json.loads(path.read_text())
    metrics, reasons = content["eval_result_metrics"], content["eval_result_unstructured"]
    assert metrics["model_performance_preservation"]["ce_loss_score"] is None
    assert metrics["sparsity"]["l1"] is None
    assert reasons["reasons"] == {
        "model_performance_preservation.ce_loss_score": "nothing is lost",
        "sparsity.l1": "not measured",
    }
    with pytest.raises(ValidationError) as refused:
        theirs.validate_python(content)
    assert {".".join(map(str, each["loc"])) for each in refused.value.errors()} == {
        "eval_result_metrics.model_performance_preservation.ce_loss_score",
        "eval_result_metrics.sparsity.l1",
    }


def test_files_are_named_as_saebench_names_them_and_none_takes_anothers_place(
    tmp_path: Path,
) -> None:
    from jsonschema import Draft202012Validator

    config = {"architecture": "topk", "of": math.inf, "dtype": torch.float32}
    saes = [
        EvaluatedSAE("a", config, "gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"),
        EvaluatedSAE("x/y", None),
        EvaluatedSAE("X_y", None),
        EvaluatedSAE("z" * 400, None),
    ]
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "old_eval_results.json").write_text("{}")
    (tmp_path / "core" / "mine.txt").write_text("kept")
    written(tmp_path / "core", *((sae, rows()) for sae in saes))
    names = {path.name for path in (tmp_path / "core").iterdir()}
    long = f"{'z' * 200}_eval_results.json"
    assert names == {
        "gemma-scope-2b-pt-res_layer_20_width_16k_average_l0_71_eval_results.json",
        *("x_y_custom_sae_eval_results.json", "X_y_custom_sae_2_eval_results.json", long),
        *("eval_output_schema_core.json", "mine.txt"),
    }
    schema = json.loads((tmp_path / "core" / "eval_output_schema_core.json").read_text())
    validator = Draft202012Validator(schema)
    runs = set()
    for path in (tmp_path / "core").glob("*_eval_results.json"):
        content = json.loads(path.read_text())
        assert not list(validator.iter_errors(content))
        runs.add(content["eval_id"])
    assert len(runs) == 1
    content["eval_result_metrics"]["sparsity"].pop("l0")
    content["eval_result_metrics"]["sparsity"]["l1"] = "many"
    assert len(list(validator.iter_errors(content))) == 2


@pytest.fixture
def saebench_code(monkeypatch: pytest.MonkeyPatch) -> Any:
    """SAEBench's module of core metrics; what it imports to choose SAEs is left out."""
    monkeypatch.setitem(
        sys.modules,
        "sae_bench.sae_bench_utils.sae_selection_utils",
        ModuleType("sae_bench.sae_bench_utils.sae_selection_utils"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_bench.evals.core.main as module
    return module


AGREE = (
    *("cossim", "explained_variance_legacy", "l2_norm_in", "l2_norm_out", "l2_ratio"),
    *("relative_reconstruction_bias", "l0", "l1", "freq_over_1_percent", "freq_over_10_percent"),
    *("normalized_freq_over_1_percent", "normalized_freq_over_10_percent", "frac_alive"),
    *("average_max_encoder_cosine_sim", "average_max_decoder_cosine_sim"),
)


@pytest.mark.slow
def test_saebenchs_own_code_has_the_same_figures_of_the_same_points(saebench_code: Any) -> None:
    """All but two: its explained variance is about zero, its mse divided by the tokens again."""
    generator = torch.Generator().manual_seed(0)
    residuals = 1.5 + torch.randn(20, 15, 8, generator=generator)
    model = new_sae("topk", d_in=8, d_sae=48, k=3, seed=1).eval()
    with torch.no_grad():
        model.sae.W_enc.add_(0.2 * torch.randn(8, 48, generator=generator))
        model.sae.W_dec.copy_(torch.nn.functional.normalize(model.sae.W_dec, dim=1))
    points = residuals.flatten(0, 1)
    own = CoreFigures(model, points.mean(0))
    for part in points.split(70):
        own.add(part, model(part))
    found = own.estimates() | weight_figures(model)
    ours = core_evaluation(
        SAE,
        [
            {"sae": "mine", "space": "recons", "metric": name, "n": 300}
            | {"value": float(each), "reason": each.reason}
            for name, each in found.items()
        ],
        CONFIG,
    ).metrics
    flat = {name: value for own in ours.values() for name, value in own.items()}

    about = {"hook_name": "hook", "hook_head_index": None, "hook_layer": 0, "d_sae": 48}
    cfg = SimpleNamespace(**about, architecture_str="topk")
    sae: Any = SimpleNamespace(cfg=cfg, device="cpu", encode=model.sae.encode)
    sae.decode, sae.W_enc, sae.W_dec = model.sae.decode, model.sae.W_enc, model.sae.W_dec
    sae.b_enc = model.sae.b_enc
    lm = SimpleNamespace(run_with_cache=lambda *_, **__: (None, {"hook": residuals}))
    store = SimpleNamespace(get_batch_tokens=lambda _: torch.zeros(20, 15, dtype=torch.long))
    flags = ("l2_norms", "sparsity_metrics", "variance_metrics", "featurewise_density_statistics")
    scalars, by_latent = saebench_code.get_sparsity_and_variance_metrics(
        *(sae, lm, store, 1),
        **{f"compute_{flag}": True for flag in flags},
        eval_batch_size_prompts=20,
        model_kwargs={},
    )
    by_latent |= saebench_code.get_featurewise_weight_based_metrics(sae)
    theirs = scalars | saebench_code.calculate_misc_metrics(by_latent)
    assert 0 < flat["freq_over_10_percent"] < flat["freq_over_1_percent"] < 1
    assert {name: flat[name] for name in AGREE} == pytest.approx(
        {name: theirs[name] for name in AGREE}, rel=1e-5
    )
    others = theirs.keys() - set(AGREE)
    assert others == {"explained_variance", "mse"}
    x, y = points, model(points).recons.detach()
    assert flat["mse"] == pytest.approx(theirs["mse"] * 300, rel=1e-5)
    error = (x - y).square().sum()
    assert flat["explained_variance"] == pytest.approx(
        float(1 - error / (x - x.mean(0)).square().sum()), rel=1e-5
    )
    assert theirs["explained_variance"] > flat["explained_variance"] + 0.1
