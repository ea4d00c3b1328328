"""`representation_geometry` files: values with what surrounds them, means, reasons, a schema."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from saerepgeo.metrics import ProcrustesDisparity
from saerepgeo.report.saebench import EvaluatedSAE, geometry_evaluations, write_evaluations

NAN = math.nan
CONFIG: dict[str, Any] = {"model_name": "a model", "llm_dtype": "float32", "n_random": 1, "seed": 0}
CONFIG |= {"n_permutations": 9, "n_nulls": 9, "n_extreme": 0, "n_subsamples": 5}
Row = dict[str, Any]


def row(sae: str, concept: str, space: str, metric: str, value: float, **more: Any) -> Row:
    about = {"sae": sae, "concept": concept, "space": space, "metric": metric, "hook": "h"}
    plain = {"n": 20, "low": NAN, "high": NAN, "null": NAN, "p": NAN, "reason": None}
    return about | {"value": value} | plain | more


ROWS = [
    row("", "days", "residuals", "rank", 7.0),
    row("", "days", "residuals", "silhouette", 0.5, low=0.4, high=0.6, null=0.0, p=0.1),
    row("a", "days", "latents", "rank", 5.0),
    row("a", "days", "latents", "silhouette", 0.25, low=0.125, high=0.375, null=0.0, p=0.01),
    row("a", "days", "latents", "silhouette/tested", 0.24, null=0.0, p=0.01),
    row("a", "days", "latents", "n_points", 20.0),
    row("a", "U.S. fruit", "latents", "silhouette", 0.75, n=8),
    row("a", "U.S. fruit", "latents", "rank", NAN, n=1, reason="1 point"),
    row("a", "days", "random", "silhouette", 0.125, low=0.0, high=0.25),
    row("a", "text", "recons", "fvu", 0.1),
    row("b", "days", "latents", "procrustes", NAN, reason="no pairs"),
]
SAES = [EvaluatedSAE("a", {"d_sae": 4}), EvaluatedSAE("b", None)]


@pytest.fixture
def files(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The files of both SAEs and their schema."""
    kind, found = geometry_evaluations(SAES, ROWS, CONFIG, [ProcrustesDisparity()])
    write_evaluations(tmp_path, kind, found)
    names = [f"{name}_custom_sae_eval_results.json" for name in "ab"]
    names.append("eval_output_schema_representation_geometry.json")
    first, second, schema = (json.loads((tmp_path / name).read_text()) for name in names)
    return first, second, schema


def test_values_stand_beside_their_intervals_and_nulls(files: Any) -> None:
    found = files[0]["eval_result_metrics"]
    assert list(found) == ["mean", "concept_days", "concept_U.S._fruit"]
    beside = {"_ci_low": 0.125, "_ci_high": 0.375, "_null": 0.0, "_p": 0.01, "_n": 20}
    days = found["concept_days"]
    for end, value in {"": 0.25, "_tested": 0.24, **beside}.items():
        assert days[f"silhouette{end}"] == value
    assert days["n_points"] == 20
    assert not {"n_points_p", "silhouette_tested_p"} & days.keys()
    mean = found["mean"]
    assert (mean["silhouette"], mean["silhouette_n"]) == (0.5, 2)
    assert (mean["rank"], mean["rank_n"]) == (5.0, 1)
    spaces = {(each["concept"], each["space"]): each for each in files[0]["eval_result_details"]}
    assert spaces["days", "residuals"]["silhouette_ci_high"] == 0.6
    assert spaces["days", "random"]["silhouette"] == 0.125
    assert ("text", "recons") not in spaces
    assert len(spaces) == 4


def test_every_null_has_its_reason(files: Any) -> None:
    first, second, _ = files
    for content in (first, second):
        reasons = content["eval_result_unstructured"]["reasons"]
        nulls = {
            f"{category}.{name}"
            for category, own in content["eval_result_metrics"].items()
            for name, value in own.items()
            if value is None
        } | {
            f"{entry['concept']}.{entry['space']}.{name}"
            for entry in content["eval_result_details"]
            for name, value in entry.items()
            if value is None
        }
        assert nulls == reasons.keys()
        assert all(reasons.values())
    reasons = first["eval_result_unstructured"]["reasons"]
    assert reasons["concept_U.S._fruit.rank"] == "1 point"
    assert reasons["concept_days.rank_p"] == "no null is drawn for this figure"
    assert reasons["days.random.silhouette_null"] == "no null is drawn for this figure"
    reasons = second["eval_result_unstructured"]["reasons"]
    assert reasons["mean.procrustes"] == "undefined for every concept: no pairs"
    assert reasons["concept_days.silhouette"] == "not measured of these latents"


def test_every_field_has_a_title_and_a_description(files: Any) -> None:
    *contents, schema = files
    validator = Draft202012Validator(schema)
    for content in contents:
        assert not list(validator.iter_errors(content))
    seen = 0

    def check(properties: dict[str, Any]) -> None:
        nonlocal seen
        for each in properties.values():
            assert each["title"]
            assert len(each["description"]) > 5
            seen += 1
            inner = each.get("items", each)
            check(inner.get("properties", {}))

    check(schema["properties"])
    assert seen > 80
    days = schema["properties"]["eval_result_metrics"]["properties"]["concept_days"]["properties"]
    assert days["silhouette_p"]["title"] == "Silhouette: p-value"
    assert days["rank"]["description"].startswith("Numerical rank")
    assert "disparity" in days["procrustes"]["description"].lower()
    contents[0]["eval_result_metrics"]["concept_days"]["other"] = 1.0
    assert list(validator.iter_errors(contents[0]))
