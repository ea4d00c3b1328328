"""Our own evaluation, `representation_geometry`: an SAE's figures of concepts in one file."""

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torchmetrics import Metric

import saerepgeo.metrics
from saerepgeo.data.prompts import file_part
from saerepgeo.report.metric_panels import COUNTS
from saerepgeo.report.results import group_rows
from saerepgeo.report.saebench.output import EvaluatedSAE, Evaluation, finite
from saerepgeo.report.saebench.schema import Category, Field, Kind

SIBLINGS = {
    "_ci_low": ("low", "lower end of the 95 % interval", "no interval is made of this figure"),
    "_ci_high": ("high", "upper end of the 95 % interval", "no interval is made of this figure"),
    "_null": ("null", "mean of the null", "no null is drawn for this figure"),
    "_p": ("p", "p-value", "no null is drawn for this figure"),
}
"""What stands beside a value: the row's column, what it is, why there may be none."""
OF_OTHERS = {
    "rank": ("Rank", "Numerical rank of the centered points, as of float32 data."),
    "n_items": ("Items", "Number of items of the concept."),
    "n_points": ("Points", "Number of points of the concept."),
    "n_merged": ("Merged points", "Points left out because another has the same prefix."),
}
OF_ENDS = {
    "tested": "the sample's value that null and p are about",
    "beside_random": "beside several random dictionaries",
}
CONFIG = (
    Field("model_name", "Model", "The language model.", "string"),
    Field("llm_dtype", "Dtype", "What its matrices are multiplied in, as set.", "string"),
    Field("hook_name", "Hook", "Where the SAE reads.", "string"),
    Field("protocol", "Protocol", "Which points and latents: see case 2.", "string"),
    Field("n_permutations", "Fast draws", "Draws of nulls that are fast, at most.", "integer"),
    Field("n_nulls", "Slow draws", "Draws of nulls that are slow, at most.", "integer"),
    Field("n_extreme", "Stop", "Extreme draws after which a null stops; 0: none.", "integer"),
    Field("n_subsamples", "Subsamples", "Subsamples behind an interval.", "integer"),
    Field("n_random", "Random dictionaries", "Baselines beside the SAE.", "integer"),
    Field("seed", "Seed", "Of all random draws.", "integer"),
)
Row = dict[str, Any]


def geometry_evaluations(
    saes: Sequence[EvaluatedSAE],
    rows: Sequence[Row],
    config: Mapping[str, Any],
    metrics: Sequence[Metric] = (),
) -> tuple[Kind, list[Evaluation]]:
    """Return the kind, whose fields are the metrics that rows have, and each SAE's evaluation.

    Metrics by concept, each value with its interval, null, p and n, and their means over concepts;
    in the details every concept and space, residuals and random dictionaries too. `metrics`
    describe those of one's own.
    """
    points = [row for row in rows if row["space"] != "recons"]
    described = _descriptions(metrics)
    names = list(dict.fromkeys(row["metric"] for row in points))
    fields = tuple(field for name in names for field in _fields(name, described))
    concepts = dict.fromkeys(row["concept"] for row in points if row["space"] == "latents")
    mean = tuple(field for name in names for field in _mean_fields(name, described))
    by_concept = (
        Category(_category(each), f"{each}: latents", f"The SAE's latents of {each}.", fields)
        for each in concepts
    )
    kind = Kind(
        "representation_geometry",
        "Representation geometry",
        "Rank, dimension, clusters, graphs, separability and alignment of concepts in the SAE's "
        "effective latents, beside residuals and random dictionaries. By saerepgeo.",
        CONFIG,
        (Category("mean", "Mean", "Means over concepts, of the latents.", mean), *by_concept),
        (
            Field("concept", "Concept", "The concept.", "string"),
            Field("space", "Space", "residuals, latents, or random dictionaries.", "string"),
            *fields,
        ),
    )
    return kind, [_evaluation(sae, points, config, kind) for sae in saes]


def _evaluation(
    sae: EvaluatedSAE, rows: Sequence[Row], config: Mapping[str, Any], kind: Kind
) -> Evaluation:
    own = [row for row in rows if row["sae"] == sae.name]
    hooks = {row["hook"] for row in own}
    beside = [row for row in rows if not row["sae"] and row["hook"] in hooks]
    metrics: dict[str, dict[str, float | None]] = {}
    reasons: dict[str, str] = {}
    latents = [row for row in own if row["space"] == "latents"]
    metrics["mean"] = _means(latents, reasons)
    details: list[dict[str, Any]] = []
    for (concept, space), group in group_rows([*beside, *own], "concept", "space").items():
        values, why = _values(group)
        details.append({"concept": concept, "space": space} | values)
        reasons |= {f"{concept}.{space}.{name}": reason for name, reason in why.items()}
        if space == "latents":
            metrics[_category(concept)] = values
            reasons |= {f"{_category(concept)}.{name}": reason for name, reason in why.items()}
    for category in kind.categories:  # a metric that this SAE, or this space, has no rows of
        found = metrics.setdefault(category.name, {})
        for field in category.fields:
            if field.name not in found:
                found[field.name] = None
                reasons[f"{category.name}.{field.name}"] = "not measured of these latents"
    told = dict(config) | {"hook_name": next(iter(hooks), ""), "protocol": "sound"}
    ordered = {field.name: told[field.name] for field in CONFIG}
    return Evaluation(sae, ordered, metrics, details, reasons, {})


def _values(rows: Sequence[Row]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return the fields of rows of one concept and space, and why some are null."""
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for row in rows:
        name = field_name(row["metric"])
        values[name] = finite(row["value"])
        if values[name] is None:
            reasons[name] = row["reason"] or "infinite"
        if not _has_siblings(row["metric"]):
            continue
        for end, (column, _, reason) in SIBLINGS.items():
            values[name + end] = finite(row[column])
            if values[name + end] is None:
                reasons[name + end] = row["reason"] or reason
        values[f"{name}_n"] = row["n"]
    return values, reasons


def _means(rows: Sequence[Row], reasons: dict[str, str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for (metric,), group in group_rows(rows, "metric").items():
        name = field_name(metric)
        values = [row["value"] for row in group if math.isfinite(row["value"])]
        found[name] = sum(values) / len(values) if values else None
        found[f"{name}_n"] = len(values)
        if not values:
            reasons[f"mean.{name}"] = f"undefined for every concept: {group[0]['reason']}"
    return found


def field_name(metric: str) -> str:
    """Return the name of a metric as a field.

    >>> field_name("gride/16")
    'gride_16'
    """
    return re.sub(r"\W+", "_", metric)


def _category(concept: str) -> str:
    return f"concept_{file_part(concept)}"


def _has_siblings(metric: str) -> bool:
    return metric not in COUNTS and not metric.endswith("/tested")


def _fields(metric: str, described: Mapping[str, tuple[str, str]]) -> list[Field]:
    (title, description), name = _described(metric, described), field_name(metric)
    found = [Field(name, title, description, is_shown=True)]
    if not _has_siblings(metric):
        return found
    found += [
        Field(name + end, f"{title}: {what}", f"Of {metric}: the {what}.")
        for end, (_, what, _) in SIBLINGS.items()
    ]
    return [*found, Field(f"{name}_n", f"{title}: n", f"What {metric} is of: points.", "integer")]


def _mean_fields(metric: str, described: Mapping[str, tuple[str, str]]) -> list[Field]:
    (title, description), name = _described(metric, described), field_name(metric)
    count = f"Concepts in the mean of {metric}."
    return [
        Field(name, f"{title}, mean", f"Mean over concepts. {description}", is_shown=True),
        Field(f"{name}_n", f"{title}: concepts", count, "integer"),
    ]


def _described(metric: str, described: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    stem, _, end = metric.partition("/")
    plain = stem.replace("_", " ").capitalize(), f"`{stem}` as the long table has it."
    title, description = described.get(stem, plain)
    if not end:
        return title, description
    return f"{title}, {end}", f"{description} At {end}: {OF_ENDS.get(end, f'scale {end}')}."


def _descriptions(metrics: Sequence[Metric]) -> dict[str, tuple[str, str]]:
    """Return title and first sentence of every metric by its stem."""
    public = (getattr(saerepgeo.metrics, name) for name in vars(saerepgeo.metrics)["__all__"])
    known = [*(each for each in public if hasattr(each, "stem")), *metrics]
    found = dict(OF_OTHERS)
    for metric in known:
        text = inspect.getdoc(metric) or ""
        first = " ".join(text.split("\n\n")[0].split())
        stem, title = getattr(metric, "stem", ""), getattr(metric, "title", "")
        found[stem] = title or stem, first or f"`{stem}` as the long table has it."
    return found
