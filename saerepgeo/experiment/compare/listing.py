"""Which SAEs a list names; what is refused before anything slow starts."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from saerepgeo.callbacks.lm_loss import sae_fingerprint
from saerepgeo.cases.spaces import sae_name
from saerepgeo.experiment.compare.settings import ComparedSAE
from saerepgeo.lm.sums import file_sum
from saerepgeo.sae.agreement import check_agreement, our_hook
from saerepgeo.sae.io.registry import matching_saes
from saerepgeo.types import ModelFacts

SAE_FILES = (".safetensors", ".json", ".pt")


class Listed(NamedTuple):
    """An SAE of the list, by the name it has in tables."""

    name: str
    source: ComparedSAE
    hook_name: str
    broken: str | None = None
    """Why its config cannot be read, in one line."""


def listed_saes(
    saes: Sequence[ComparedSAE], data: dict[str, Any], facts: ModelFacts
) -> list[Listed]:
    """Return the SAEs of a list, regular expressions written out; no weights are read.

    Raises ValueError in one line: settings that name no SAE, two SAEs of one name or with one
    content, an SAE of another model, one without a hook, a group at several hooks. One whose files
    cannot be read is `broken`.
    """
    sources = [each for source in saes for each in _written_out(source)]
    names = [source.name or sae_name(source, sources) for source in sources]
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(
                f"`saes` must have names of their own, got {name} {count} times: give each its "
                "`name`"
            )
    found = [_listed(*each, data, facts) for each in zip(names, sources, strict=True)]
    _check_groups(found)
    seen: dict[str, str] = {}
    for each in found:
        if each.source.path is None or each.broken is not None:
            continue
        if (twin := seen.setdefault(contents(each.source), each.name)) != each.name:
            raise ValueError(
                f"`saes` must be different SAEs: {each.name} has the files of {twin}; leave one out"
            )
    return found


def _check_groups(listed: Sequence[Listed]) -> None:
    """Refuse a group whose SAEs cannot be repeats, with a ValueError."""
    hooks: dict[str, str] = {}
    for each in listed:
        if each.source.group == "":
            raise ValueError(f"`group` of SAE {each.name} must be a name, got none: leave it out")
        if (group := each.source.group) is None or each.broken is not None:
            continue
        if (hook := hooks.setdefault(group, each.hook_name)) != each.hook_name:
            raise ValueError(
                f"`group` {group} must be of SAEs at one hook, got {hook} and, of {each.name}, "
                f"{each.hook_name}: give each hook's SAEs a group of their own"
            )


def contents(source: ComparedSAE, seed: int = 0) -> str:
    """Return what changes when the SAE does: sums of a folder's files, else of its weights.

    What lies nowhere as files of ours, a release or a new SAE, is loaded for that.
    """
    settings = {"options": source.options, "input_scale": source.input_scale}
    if (folder := source.folder) is None:
        return json.dumps([settings, sae_fingerprint(source.build(seed))])
    files = sorted(file for file in folder.rglob("*") if file.suffix in SAE_FILES)
    sums = [(str(file.relative_to(folder)), file_sum(file)) for file in files]
    return json.dumps([settings, sums])


def _written_out(source: ComparedSAE) -> list[ComparedSAE]:
    if source.path is None or source.release is not None or source.architecture is not None:
        source.check()
    if source.release is None:
        return [source]
    pairs = matching_saes(source.release, str(source.sae_id))
    if source.name is not None and len(pairs) > 1:
        raise ValueError(
            f"`saes` gives the name {source.name} to {len(pairs)} SAEs: leave it out, or narrow "
            f"`release` {source.release} and `sae_id` {source.sae_id}"
        )
    return [replace(source, release=release, sae_id=sae_id) for release, sae_id in pairs]


def _listed(name: str, source: ComparedSAE, data: dict[str, Any], facts: ModelFacts) -> Listed:
    try:
        config = source.read_config()
    except (ValueError, OSError) as error:
        return Listed(name, source, "", str(error))
    hook = source.hook_name or our_hook((config.get("metadata") or {}).get("hook_name"))
    if hook is None:
        raise ValueError(f"SAE {name} must have a hook, and its files name none: give `hook_name`")
    told = {key: value for key, value in data.items() if key != "context_size"}
    try:
        check_agreement(config, told | {"hook_name": hook}, facts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return Listed(name, source, hook)
