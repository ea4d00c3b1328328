"""The results of a comparison in SAEBench's shape, beside its table."""

from collections.abc import Sequence
from typing import Any

from saerepgeo.experiment.compare.listing import Listed
from saerepgeo.experiment.compare.settings import Comparison
from saerepgeo.report.saebench import (
    EvaluatedSAE,
    core_evaluation,
    geometry_evaluations,
    write_evaluations,
)
from saerepgeo.report.saebench.core import CORE

FOLDER = "saebench"


def write_saebench(
    listed: Sequence[Listed],
    rows: Sequence[dict[str, Any]],
    comparison: Comparison,
    data: dict[str, Any],
) -> None:
    """Write `saebench/core/` and `saebench/representation_geometry/` of all SAEs that have rows."""
    names = {row["sae"] for row in rows}
    saes = [_evaluated(each) for each in listed if each.name in names]
    text = data["heldout_text"] or data["text"]
    config = {
        "model_name": data["lm"],
        "llm_dtype": data["lm_dtype"],
        "dataset": text if isinstance(text, str) else ", ".join(text),
        "context_size": data["context_size"],
        "n_eval_sparsity_variance_batches": data["validation_contexts"],
        **comparison.draws,
    }
    folder = f"{comparison.output.rstrip('/')}/{FOLDER}"
    write_evaluations(
        f"{folder}/{CORE.type_id}", CORE, [core_evaluation(sae, rows, config) for sae in saes]
    )
    kind, found = geometry_evaluations(saes, rows, config, comparison.metrics or ())
    write_evaluations(f"{folder}/{kind.type_id}", kind, found)


def _evaluated(listed: Listed) -> EvaluatedSAE:
    source = listed.source
    try:
        config = source.read_config()
    except (ValueError, OSError):  # gone since it was listed
        config = None
    if source.release is None:
        return EvaluatedSAE(listed.name, config)
    return EvaluatedSAE(listed.name, config, source.release, str(source.sae_id))
