"""The table of case 2 in the paper's shape, pivoted from the long one."""

from collections.abc import Sequence
from typing import Any

from saerepgeo.report.results import group_rows

Row = dict[str, Any]
RANDOM = "sound, random dictionary"
"""Protocol of the rows whose latents are those of random directions: the baseline of `sound`."""
PRINTED = ("Clusters", "Avg Dim", "Betti0", "MST Weight", "AGD")
COLUMNS = (
    *("Concept", "Model", "Protocol"),
    *(f"{figure} {side}" for figure in PRINTED for side in ("Resid", "Latents")),
    "Procrustes Disparity",
)
"""First columns of the table; sound rows go on with n, interval and p of each figure."""
SPACES = {
    "cluster_count": "Clusters",
    "betti_0": "Betti0",
    "agd": "AGD",
    "two_nn": "Global Dim",
    "two_nn_within": "Avg Dim",
    "two_nn_per_cluster": "Avg Dim",
    "mstw": "MST Weight",
    "relative_aedp": "Relative AEDP",
}
PAIRS = {
    "procrustes": "Procrustes Disparity",
    "number_paired_procrustes": "Procrustes Disparity",
    "matched_procrustes": "Matched Procrustes Disparity",
    "unmatched_mass": "Unmatched Mass",
}
PARTS = ("n", "low", "high", "p", "null")


def clustering_rows(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each concept, protocol and space of latents, beside the residuals.

    Of several SAEs the model's name goes on with the SAE's.
    """
    n_saes = len({row["sae"] for row in rows} - {""})
    groups = group_rows(rows, "model", "concept", "protocol", "sae", "space")
    spaces = {key: {row["metric"]: row for row in own} for key, own in groups.items()}
    found = []
    for (model, concept, protocol, sae, space), latents in spaces.items():
        if space == "residuals":
            continue
        residuals = spaces[model, concept, protocol, "", "residuals"]
        row = {
            "Concept": concept,
            "Model": f"{model}, {sae}" if n_saes > 1 else model,
            "Protocol": space.replace("random", RANDOM) if "random" in space else protocol,
            "Items": int(latents["n_items"]["value"]),
            "n": int(latents["n_points"]["value"]),
        }
        if protocol != "paper":
            row["Merged"] = int(latents["n_merged"]["value"])
        for side, figures in ((" Resid", residuals), (" Latents", latents)):
            for metric, title in SPACES.items():
                row |= _columns(f"{title}{side}", metric, figures)
        for metric, title in PAIRS.items():
            row |= _columns(title, metric, latents)
        found.append({column: row.get(column, float("nan")) for column in COLUMNS} | row)
    return found


def summary(rows: Sequence[Row]) -> str:
    """Return the table of the run as lines of text, with p-values where there are any."""
    head = "".join(f"{name + ' R→L':>20}" for name in PRINTED)
    lines = [f"{'concept':<16}{'protocol':<26}{head}{'Procrustes (p)':>18}"]
    for row in rows:
        cells = [f"{row[f'{n} Resid']:.4g} → {row[f'{n} Latents']:.4g}" for n in PRINTED]
        p = row.get("Procrustes Disparity p")
        last = f"{row['Procrustes Disparity']:.3f}" + (f" ({p:.3f})" if p is not None else "")
        body = "".join(f"{cell:>20}" for cell in cells)
        lines.append(f"{row['Concept']:<16}{row['Protocol']:<26}{body}{last:>18}")
    return "\n".join(lines)


def _columns(column: str, metric: str, figures: dict[str, Row]) -> Row:
    """Return a figure's value under its name, and what stands behind it in columns beside it."""
    figure = figures.get(metric)
    if figure is None:
        return {}
    if figure["protocol"] == "paper":
        return {column: figure["value"]}
    tested = figures.get(f"{metric}/tested")
    columns = {} if tested is None else {f"{column} tested": tested["value"]}
    columns[column] = figure["value"]
    columns |= {f"{column} {part}": figure[part] for part in PARTS}
    if figure["reason"] is not None:
        columns[f"{column} reason"] = figure["reason"]
    return columns
