"""The tables of case 1, pivoted from the long one: ranks by noise, and the strata they visit."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from saerepgeo.geometry.unfoldings import MODES

Row = dict[str, Any]
RELATIVES = ("effective_rank", "stable_rank", "participation_ratio")
GROUP = ("model", "concept", "space", "mode", "noise_scale", "tolerance")
"""What a sequence of ranks over noise levels is about; `random` is the space of the latents of a
dictionary with random directions."""
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
    spaces: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        key = (row["model"], row["sae"], row["concept"], row["space"])
        spaces.setdefault(key, {})[row["metric"]] = row
    n_saes = len({row["sae"] for row in rows} - {""})
    found = []
    for (model, sae, concept, at), figures in spaces.items():
        space, condition = condition_of(at)
        name = f"{model}, {sae}" if sae and n_saes > 1 else model
        rules = [m.split("/", 2)[2] for m in figures if m.startswith(f"rank/{MODES[0]}/")]
        for mode in MODES if rules else ():
            for rule in rules:
                rank = figures[f"rank/{mode}/{rule}"]
                found.append(
                    {"model": name, "concept": concept, "space": space, "mode": mode}
                    | condition
                    | {"tolerance": rule, "rank": int(rank["value"])}
                    | {"n_rows": int(figures[f"n_rows/{mode}"]["value"])}
                    | {relative: figures[f"{relative}/{mode}"]["value"] for relative in RELATIVES}
                    | {"n_active": int(figures["n_active"]["value"]), "n_points": rank["n"]}
                )
    return found


def strata(rows: Sequence[Row]) -> list[Row]:
    """Return, for every space, mode, noise scale and rule, the ranks visited over noise levels.

    One row each: `strata`, the distinct ranks in ascending order, and their number; the least and
    largest rank; the dimension nr − r(r−1)/2 of the stratum at noise 0 among the n × n matrices of
    rank r; `sd_levels`, the standard deviation over levels of the mean rank of a level; `sd_draws`,
    the root mean variance within levels. Ranks vary with the noise as far as `sd_levels` exceeds
    `sd_draws`; both are NaN for fewer than two levels, or draws.

    Source of the dimension: Bonnabel & Sepulchre 2009.
    """
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in GROUP)].append(row)
    return [dict(zip(GROUP, key, strict=True)) | _visited(group) for key, group in groups.items()]


def summary(rows: Sequence[Row]) -> str:
    """Return the ranks of the points × latents matrix over the noise levels, as lines of text."""
    mode, rule = PRINTED
    lines = [f"ranks visited over noise levels (mode {mode}, tolerance {rule}):"]
    lines += [
        f"  {row['concept']:<16}{row['space']:<10}{row['noise_scale']:<9} "
        f"{row['n_strata']:>3} strata, rank {row['rank_min']}–{row['rank_max']}, "
        f"sd over levels {row['sd_levels']:.1f}, over draws {row['sd_draws']:.1f}"
        for row in rows
        if (row["mode"], row["tolerance"]) == (mode, rule)
    ]
    return "\n".join(lines)


def _visited(rows: list[Row]) -> Row:
    levels: dict[float, list[int]] = defaultdict(list)
    for row in rows:
        levels[row["noise"]].append(row["rank"])
    ranks = sorted({row["rank"] for row in rows})
    means = [statistics.fmean(draws) for draws in levels.values()]
    variances = [statistics.variance(draws) for draws in levels.values() if len(draws) > 1]
    clean = [row for row in rows if row["noise"] == 0]
    return {
        "strata": " ".join(map(str, ranks)),
        "n_strata": len(ranks),
        "rank_min": ranks[0],
        "rank_max": ranks[-1],
        "stratum_dimension": _stratum_dimension(clean[0]) if clean else None,
        "sd_levels": statistics.stdev(means) if len(means) > 1 else math.nan,
        "sd_draws": math.sqrt(statistics.fmean(variances)) if variances else math.nan,
        "n_levels": len(levels),
        "n_draws": max(map(len, levels.values())),
    }


def _stratum_dimension(row: Row) -> int:
    rank: int = row["rank"]
    return row["n_rows"] * rank - rank * (rank - 1) // 2
