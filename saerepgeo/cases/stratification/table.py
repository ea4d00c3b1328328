"""The tables of case 1, pivoted from the long one: ranks by noise, and the strata they visit."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev, variance
from typing import Any

from saerepgeo.report.results import group_rows

Row = dict[str, Any]
RELATIVES = ("effective_rank", "stable_rank", "participation_ratio")
GROUP = ("model", "concept", "space", "mode", "noise_scale", "tolerance")
"""What a sequence of ranks over noise levels is about."""
PRINTED = ("feature", "eps")
"""Mode and rule of the closing summary; `strata.csv` holds all."""


def condition_of(space: str) -> tuple[str, Row]:
    """Return the space of a row of case 1 and its draw of noise.

    >>> condition_of("latents+absolute:0.5:2")
    ('latents', {'noise_scale': 'absolute', 'noise': 0.5, 'draw': 2})
    """
    name, _, condition = space.partition("+")
    scale, noise, draw = condition.split(":")
    return name, {"noise_scale": scale, "noise": float(noise), "draw": int(draw)}


def rank_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of `rank_by_noise.csv`: one for each space, draw, mode and rule."""
    spaces = group_rows(rows, "model", "sae", "concept", "space")
    n_saes = len({row["sae"] for row in rows} - {""})
    found = []
    for (model, sae, concept, at), own in spaces.items():
        figures = {row["metric"]: row for row in own}
        space, condition = condition_of(at)
        about = {"model": f"{model}, {sae}" if sae and n_saes > 1 else model, "concept": concept}
        for name in [name for name in figures if name.startswith("rank/")]:
            rank, (_, mode, rule) = figures[name], name.split("/", 2)
            found.append(
                {**about, "space": space, "mode": mode, **condition, "tolerance": rule}
                | {"rank": int(rank["value"]), "n_rows": int(figures[f"n_rows/{mode}"]["value"])}
                | {relative: figures[f"{relative}/{mode}"]["value"] for relative in RELATIVES}
                | {"n_active": int(figures["n_active"]["value"]), "n_points": rank["n"]}
            )
    return found


def strata(rows: Sequence[Row]) -> list[Row]:
    """Return, for every space, mode, noise scale and rule, the ranks visited over noise levels.

    `strata` are the distinct ranks in ascending order; `stratum_dimension` is nr − r(r−1)/2 of the
    n × n matrices of rank r at noise 0 (Bonnabel & Sepulchre 2009); `sd_levels` the standard
    deviation over levels of the mean rank of a level, `sd_draws` the root mean variance within
    levels, NaN for fewer than two levels, or draws. Ranks vary with the noise as far as the former
    exceeds the latter.
    """
    groups = group_rows(rows, *GROUP).items()
    return [dict(zip(GROUP, key, strict=True)) | _visited(group) for key, group in groups]


def summary(rows: Sequence[Row]) -> str:
    """Return the ranks of the points × latents matrix over the noise levels, as lines of text."""
    mode, rule = PRINTED
    lines = [f"ranks visited over noise levels (mode {mode}, tolerance {rule}):"]
    lines += [
        f"  {row['concept']:<16}{row['space']:<10}{row['noise_scale']:<9} "
        f"{row['n_strata']:>3} strata, rank {row['rank_min']}–{row['rank_max']}, "
        f"sd over levels {row['sd_levels']:.1f}, over draws {row['sd_draws']:.1f}"
        for row in rows
        if (row["mode"], row["tolerance"]) == PRINTED
    ]
    return "\n".join(lines)


def _visited(rows: list[Row]) -> Row:
    levels = [[row["rank"] for row in own] for own in group_rows(rows, "noise").values()]
    ranks = sorted({row["rank"] for row in rows})
    means = [fmean(draws) for draws in levels]
    variances = [variance(draws) for draws in levels if len(draws) > 1]
    clean = [(row["n_rows"], row["rank"]) for row in rows if row["noise"] == 0]
    return {
        "strata": " ".join(map(str, ranks)),
        "n_strata": len(ranks),
        "rank_min": ranks[0],
        "rank_max": ranks[-1],
        "stratum_dimension": next((n * r - r * (r - 1) // 2 for n, r in clean), None),
        "sd_levels": stdev(means) if len(means) > 1 else math.nan,
        "sd_draws": math.sqrt(fmean(variances)) if variances else math.nan,
        "n_levels": len(levels),
        "n_draws": max(map(len, levels)),
    }
