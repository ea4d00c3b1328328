"""Figures across SAEs: does a figure go with how well, or how sparsely, an SAE reconstructs?"""

from collections.abc import Sequence
from typing import Any

from saerepgeo.cases.statistics import spearman
from saerepgeo.experiment.compare.one_sae import RECONS, TEXT
from saerepgeo.metrics.wrappers import Figure
from saerepgeo.report.metric_panels import COUNTS
from saerepgeo.report.results import ASIDES, group_rows, result_row

AGAINST = ("fvu", "l0")
SPACE = "across SAEs"
ALL_HOOKS = "all hooks"
Row = dict[str, Any]


def across_saes(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """Return Spearman's correlation of every metric with fvu and l0 over the SAEs, as rows.

    One hook's SAEs by themselves and, of several hooks, all together: there depth is in the
    correlation. Metric `{name}~fvu` of concept and hook, n the number of SAEs; see `spearman`.
    """
    own = [row for row in rows if row["space"] in ("latents", RECONS)]
    hooks = list(dict.fromkeys((row["model"], row["hook"]) for row in own))
    found = [row for hook in hooks for row in _of_hooks([hook], own, seed)]
    return found + (_of_hooks(hooks, own, seed) if len(hooks) > 1 else [])


def _of_hooks(hooks: Sequence[tuple[str, str]], rows: Sequence[Row], seed: int) -> list[Row]:
    chosen = [row for row in rows if (row["model"], row["hook"]) in hooks]
    values = {
        key: {row["sae"]: row["value"] for row in group}
        for key, group in group_rows(chosen, "concept", "metric").items()
    }
    model, hook = hooks[0] if len(hooks) == 1 else ("", ALL_HOOKS)
    found: list[Row] = []
    for (concept, metric), of_saes in values.items():
        if metric in COUNTS or metric.endswith(ASIDES):
            continue
        about = {"model": model, "hook": hook, "sae": "", "concept": concept}
        about |= {"space": SPACE, "protocol": "sound", "seed": seed}
        for other in AGAINST:
            if other == metric or (TEXT, other) not in values:
                continue
            against = values[TEXT, other]
            both = [name for name in of_saes if name in against]
            pairs = [of_saes[name] for name in both], [against[name] for name in both]
            figure = Figure(*spearman(*pairs, seed=seed))
            found += result_row(about, f"{metric}~{other}", figure)
    return found
