"""Figures across SAEs: what goes with how well, how sparsely an SAE reconstructs, or its method?"""

from collections.abc import Mapping, Sequence
from typing import Any

from saerepgeo.cases.statistics import share_between_groups, spearman
from saerepgeo.experiment.compare.one_sae import RECONS, TEXT
from saerepgeo.metrics.wrappers import Figure
from saerepgeo.report.metric_panels import COUNTS
from saerepgeo.report.results import ASIDES, group_rows, result_row

AGAINST = ("fvu", "l0")
SPACE = "across SAEs"
ALL_HOOKS = "all hooks"
Row = dict[str, Any]


def across_saes(
    rows: Sequence[Row], groups: Mapping[str, str] | None = None, seed: int = 0
) -> list[Row]:
    """Return how every metric goes with fvu and l0 over the SAEs, and with their groups, as rows.

    One hook's SAEs by themselves and, of several hooks, all together: there depth is in the
    figures. Of concept and hook, n the number of SAEs: `{name}~fvu` and `{name}~l0`, Spearman's
    correlation; `{name}~fvu|l0` with l0 given; `{name}~groups`, the share of the variance that lies
    between `groups` of repeats (name of an SAE to that of its group). An SAE without a group is one
    of its own, and takes no part in that share. See `spearman`, `share_between_groups`.
    """
    own = [row for row in rows if row["space"] in ("latents", RECONS)]
    hooks = list(dict.fromkeys((row["model"], row["hook"]) for row in own))
    of_some = hooks if len(hooks) == 1 else [*hooks, None]
    return [row for hook in of_some for row in _of_hook(hook, own, groups or {}, seed)]


def _of_hook(
    hook: tuple[str, str] | None, rows: Sequence[Row], groups: Mapping[str, str], seed: int
) -> list[Row]:
    chosen = [row for row in rows if hook in (None, (row["model"], row["hook"]))]
    values = {
        key: {row["sae"]: row["value"] for row in group}
        for key, group in group_rows(chosen, "concept", "metric").items()
    }
    model, name = hook or ("", ALL_HOOKS)
    found: list[Row] = []
    for (concept, metric), of_saes in values.items():
        if metric in COUNTS or metric.endswith(ASIDES):
            continue
        about = {"model": model, "hook": name, "sae": "", "concept": concept}
        about |= {"space": SPACE, "protocol": "sound", "seed": seed}
        against = {other: values.get((TEXT, other), {}) for other in AGAINST}
        figures = _correlations(metric, of_saes, against, groups, seed)
        grouped = [sae for sae in of_saes if sae in groups]
        if grouped:
            shared = [of_saes[sae] for sae in grouped], [groups[sae] for sae in grouped]
            figures["groups"] = Figure(*share_between_groups(*shared, seed=seed))
        for other, figure in figures.items():
            found += result_row(about, f"{metric}~{other}", figure)
    return found


def _correlations(
    metric: str,
    of_saes: Mapping[str, float],
    against: Mapping[str, Mapping[str, float]],
    groups: Mapping[str, str],
    seed: int,
) -> dict[str, Figure]:
    known = {name: values for name, values in against.items() if values and name != metric}
    pairs = [(name,) for name in known] + ([AGAINST] if len(known) == len(AGAINST) else [])
    found = {}
    for names in pairs:
        both = [sae for sae in of_saes if all(sae in known[name] for name in names)]
        y, *given = ([known[name][sae] for sae in both] for name in names)
        own = [(True, groups[sae]) if sae in groups else (False, sae) for sae in both]
        estimate = spearman(
            [of_saes[sae] for sae in both],
            y,
            given=given[0] if given else None,
            groups=own if groups else None,
            seed=seed,
        )
        found["|".join(names)] = Figure(*estimate)
    return found
