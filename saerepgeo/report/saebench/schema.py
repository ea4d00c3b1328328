"""What the files hold: every field with its title and description, as a JSON schema."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Field(NamedTuple):
    """A value in a file; anything but text may be null."""

    name: str
    title: str
    description: str
    kind: str = "number"
    is_shown: bool = False
    """Whether user interfaces show it by default."""


class Category(NamedTuple):
    """Metrics that stand together."""

    name: str
    title: str
    description: str
    fields: tuple[Field, ...]


class Kind(NamedTuple):
    """A kind of evaluation and the fields of its files."""

    type_id: str
    title: str
    description: str
    config: tuple[Field, ...]
    categories: tuple[Category, ...]
    details: tuple[Field, ...]
    """Of one entry of the details; there only where there is something to say."""

    @property
    def file_name(self) -> str:
        """The name of the schema's file, as SAEBench names its own."""
        return f"eval_output_schema_{self.type_id}.json"

    def json_schema(self) -> dict[str, Any]:
        """Return the schema of the files of this kind."""
        metrics = {
            each.name: _of_fields(each.title, each.description, each.fields)
            for each in self.categories
        }
        entry = _of_fields("Detail", "One entry of the details.", self.details)
        del entry["required"]
        parts: dict[str, Any] = {
            "eval_config": _of_fields("Settings", "What the evaluation was told.", self.config),
            "eval_result_metrics": _of_object(
                "Metrics by category", "Flat within a category; null where undefined.", metrics
            ),
            "eval_result_details": {
                "title": "Details",
                "description": "Figures in more detail, an entry each.",
                "type": "array",
                "items": entry,
            },
        }
        for name, title, description, kind, _ in ENVELOPE:
            parts[name] = {"title": title, "description": description, "type": kind.split("|")}
        parts["eval_type_id"]["const"] = self.type_id
        found = _of_object(self.title, self.description, parts)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found


ENVELOPE = (
    Field("eval_type_id", "Kind", "The kind of evaluation.", "string"),
    Field("eval_id", "Run", "A UUID of the run, the same in all files of one.", "string"),
    Field("datetime_epoch_millis", "Time", "When it was written, ms since 1970.", "integer"),
    Field(
        "sae_bench_commit_hash",
        "SAEBench commit",
        "Unknown, as SAEBench writes without one: its code was not run.",
        "string",
    ),
    Field("sae_lens_id", "SAE", "Its id in SAELens; custom_sae for one of no release.", "string"),
    Field(
        "sae_lens_release_id",
        "Release",
        "Its release in SAELens; for one of no release its name in the comparison.",
        "string",
    ),
    Field("sae_lens_version", "SAELens", "The version that read the SAE.", "string"),
    Field("sae_cfg_dict", "SAE config", "The SAE's config; null if gone.", "object|null"),
    Field(
        "eval_result_unstructured",
        "Reasons and notes",
        "`reasons`: why a value is null, by category.field, and in details by "
        "concept.space.field. `notes`: where a figure is not quite SAEBench's.",
        "object",
    ),
)


def _of_object(title: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    about = {"title": title, "description": description, "type": "object"}
    return about | {
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _of_fields(title: str, description: str, fields: Iterable[Field]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, own_title, own_description, kind, is_shown in fields:
        kinds = kind if kind == "string" else [kind, "null"]
        properties[name] = {"title": own_title, "description": own_description, "type": kinds}
        properties[name] |= {"ui_default_display": True} if is_shown else {}
    return _of_object(title, description, properties)
