"""Evaluations of SAEs as files in SAEBench's shape, and the schema of their kind beside them."""

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import saerepgeo
from saerepgeo.data.prompts import file_part
from saerepgeo.files import is_url, replacing_folder, write_bytes
from saerepgeo.report.saebench.schema import Kind

ENDING = "_eval_results.json"
LONGEST = 200
"""Characters of a file's name before its ending."""


class EvaluatedSAE(NamedTuple):
    """An SAE as SAEBench names it: by release and id, or its own name and "custom_sae"."""

    name: str
    """What the long table calls it."""
    config: dict[str, Any] | None
    """SAELens' config."""
    release: str | None = None
    sae_id: str = "custom_sae"

    @property
    def file_stem(self) -> str:
        """Release and id, safe as a file name."""
        return file_part(f"{self.release or self.name}_{self.sae_id}")[:LONGEST]


class Evaluation(NamedTuple):
    """What is to be written of an SAE; None in a metric is null."""

    sae: EvaluatedSAE
    config: dict[str, Any]
    metrics: dict[str, dict[str, float | None]]
    details: list[dict[str, Any]]
    reasons: dict[str, str]
    """Why a value is null."""
    notes: dict[str, str]


def write_evaluations(folder: str | Path, kind: Kind, evaluations: Sequence[Evaluation]) -> None:
    """Write `<release>_<sae_id>_eval_results.json` for each SAE, and the schema, into a folder.

    Results of this kind that stood there before go; the folder, unless it is a URL, changes as a
    whole. Raises DiskError where it cannot be written.
    """
    run, names = str(uuid.uuid4()), dict[str, Evaluation]()
    for each in evaluations:
        taken = {name.casefold() for name in names}
        stems = [each.sae.file_stem, *(f"{each.sae.file_stem}_{n + 2}" for n in range(len(taken)))]
        free = next(stem for stem in stems if stem.casefold() not in taken)
        names[free] = each
    files = {kind.file_name: _text(kind.json_schema())}
    for name, each in names.items():
        files[f"{name}{ENDING}"] = _text(_enveloped(kind, each, run))
    if is_url(folder):
        _replace_at_url(str(folder), files)
        return
    before = frozenset(path.name for path in Path(folder).glob(f"*{ENDING}"))
    with replacing_folder(folder, replaces=before) as staging:
        for name, text in files.items():
            (staging / name).write_text(text, encoding="utf-8")


def _replace_at_url(folder: str, files: Mapping[str, str]) -> None:
    import fsspec

    for name, text in files.items():
        write_bytes(f"{folder}/{name}", text.encode())
    store, path = fsspec.url_to_fs(folder)
    for old in store.glob(f"{path}/*{ENDING}"):
        if old.rpartition("/")[2] not in files:
            store.rm(old)


def _enveloped(kind: Kind, evaluation: Evaluation, run: str) -> dict[str, Any]:
    sae, config = evaluation.sae, evaluation.sae.config
    return {
        "eval_type_id": kind.type_id,
        "eval_config": evaluation.config,
        "eval_id": run,
        "datetime_epoch_millis": int(time.time() * 1000),
        "eval_result_metrics": evaluation.metrics,
        "eval_result_details": evaluation.details,
        "sae_bench_commit_hash": "Unknown",
        "sae_lens_id": sae.sae_id,
        "sae_lens_release_id": sae.release or sae.name,
        "sae_lens_version": version("sae_lens"),
        "sae_cfg_dict": config and {"architecture": "standard"} | config,
        "eval_result_unstructured": {
            "reasons": evaluation.reasons,
            "notes": evaluation.notes,
            "saerepgeo_version": saerepgeo.__version__,
        },
    }


def finite(value: float) -> float | None:
    """Return a number that JSON has, else None."""
    return value if math.isfinite(value) else None


def _text(content: Any) -> str:
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Return what JSON holds of a value; a config may hold anything."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return finite(value)
    return value if value is None or isinstance(value, str | int) else str(value)
