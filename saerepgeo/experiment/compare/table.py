"""The long table of a comparison as one row an SAE, concept and space: on disk, and printed."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from saerepgeo.cases.geometry_tables import GeometryTable
from saerepgeo.experiment.compare.across import SPACE
from saerepgeo.experiment.compare.one_sae import RECONS
from saerepgeo.report.results import ASIDES, group_rows

KEY = ("model", "hook", "sae", "concept", "space")
OF_TEXT = ("fvu", "l0", "ce_recovered")
PRINTED = (
    *("rank", "two_nn", "cluster_count", "betti_0", "agd", "mstw"),
    *("relative_aedp", "fisher_ratio", "silhouette", "cka", "procrustes"),
)
Row = dict[str, Any]


def wide_rows(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each SAE, concept and space, its metrics as columns.

    Rows of an SAE's latents begin with its figures on held-out text.
    """
    text = {
        sae: {row["metric"]: row["value"] for row in own}
        for (sae,), own in group_rows([r for r in rows if r["space"] == RECONS], "sae").items()
    }
    columns = dict.fromkeys(name for figures in text.values() for name in figures)
    points = [row for row in rows if row["space"] not in (RECONS, SPACE)]
    found = []
    for key, own in group_rows(points, *KEY).items():
        row = dict(zip(KEY, key, strict=True))
        of_text = text.get(row["sae"], {}) if row["space"] == "latents" else {}
        row |= {name: of_text.get(name, math.nan) for name in columns}
        row |= {r["metric"]: r["value"] for r in own if not r["metric"].endswith(ASIDES)}
        found.append(row)
    return found


def printed(rows: Sequence[Row]) -> str:
    """Return the table of `wide_rows` as lines of text, of the metrics a terminal has room for."""
    names = [*OF_TEXT, *(name for name in PRINTED if any(name in row for row in rows))]
    several = len({row["hook"] for row in rows}) > 1
    shown = [
        {"sae": row["sae"] or "–", "concept": row["concept"], "space": row["space"]}
        | ({"hook": row["hook"]} if several else {})
        | {name: row.get(name, math.nan) for name in names}
        for row in rows
    ]
    return str(GeometryTable(shown))


def printed_across(rows: Sequence[Row]) -> str:
    """Return the figures across SAEs whose interval leaves out 0, or why there are none."""
    found = [row for row in rows if row["space"] == SPACE]
    defined = [row for row in found if row["reason"] is None]
    if not defined:
        plain = [row for row in found if row["metric"].endswith(("~fvu", "~l0"))]
        most = max((row["n"] for row in plain), default=0)  # of several hooks, all together
        reasons = Counter(str(r["reason"]) for r in plain if r["n"] == most).most_common(1)
        return f"no figures across SAEs: {reasons[0][0] if reasons else 'none on held-out text'}"
    shares = [row for row in defined if row["metric"].endswith("~groups")]
    others = [row for row in defined if not row["metric"].endswith("~groups")]
    kinds = (("rank correlations", others), ("shares of variance between groups", shares))
    columns = ("concept", "metric", "hook", "value", "low", "high", "n")
    lines = []
    for kind, own in kinds:
        clear = [row for row in own if row["low"] > 0 or row["high"] < 0]
        # so many were looked at: some leave out 0 by chance
        lines += [f"{len(clear)} of {len(own)} {kind} have an interval without 0"] if own else []
        table = [{name: row[name] for name in columns} for row in clear]
        lines += [str(GeometryTable(table))] if clear else []
    return "\n".join(lines)
