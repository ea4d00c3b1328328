"""The table of case 2 in the paper's shape, pivoted from the long one."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
RANDOM = "sound, random dictionary"
"""Protocol of the rows whose latents are those of random directions: the baseline of `sound`."""
COLUMNS = (
    "Concept",
    "Model",
    "Protocol",
    "Clusters Resid",
    "Clusters Latents",
    "Avg Dim Resid",
    "Avg Dim Latents",
    "Betti0 Resid",
    "Betti0 Latents",
    "MST Weight Resid",
    "MST Weight Latents",
    "AGD Resid",
    "AGD Latents",
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
    names = sorted({row["sae"] for row in rows} - {""})
    spaces: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        key = (row["model"], row["concept"], row["protocol"], row["sae"], row["space"])
        spaces.setdefault(key, {})[row["metric"]] = row
    found = []
    for (model, concept, protocol, sae, space), latents in spaces.items():
        if space == "residuals":
            continue
        residuals = spaces[model, concept, protocol, "", "residuals"]
        name = space.replace("random", RANDOM) if space.startswith("random") else protocol
        row = {
            "Concept": concept,
            "Model": f"{model}, {sae}" if len(names) > 1 else model,
            "Protocol": name,
            "Items": int(latents["n_items"]["value"]),
            "n": int(latents["n_points"]["value"]),
        }
        is_plain = protocol == "paper"
        if not is_plain:
            row["Merged"] = int(latents["n_merged"]["value"])
        for side, figures in ((" Resid", residuals), (" Latents", latents)):
            for metric, title in SPACES.items():
                row |= _columns(f"{title}{side}", metric, figures, is_plain)
        for metric, title in PAIRS.items():
            row |= _columns(title, metric, latents, is_plain)
        missing = dict.fromkeys(COLUMNS, float("nan"))
        found.append({name: row.get(name, missing[name]) for name in COLUMNS} | row)
    return found


def summary(rows: Sequence[Row]) -> str:
    """Return the table of the run as lines of text, with p-values where there are any."""
    names = ("Clusters", "Avg Dim", "Betti0", "MST Weight", "AGD")
    head = "".join(f"{name + ' R→L':>20}" for name in names)
    lines = [f"{'concept':<16}{'protocol':<26}{head}{'Procrustes (p)':>18}"]
    for row in rows:
        cells = [f"{row[f'{n} Resid']:.4g} → {row[f'{n} Latents']:.4g}" for n in names]
        p = row.get("Procrustes Disparity p")
        last = f"{row['Procrustes Disparity']:.3f}" + (f" ({p:.3f})" if p is not None else "")
        body = "".join(f"{cell:>20}" for cell in cells)
        lines.append(f"{row['Concept']:<16}{row['Protocol']:<26}{body}{last:>18}")
    return "\n".join(lines)


def _columns(column: str, metric: str, figures: dict[str, Row], is_plain: bool) -> Row:
    """Return a figure's value under its name, and what stands behind it in columns beside it."""
    figure = figures.get(metric)
    if figure is None:
        return {}
    if is_plain:
        return {column: figure["value"]}
    columns: Row = {}
    if f"{metric}/tested" in figures:
        columns[f"{column} tested"] = figures[f"{metric}/tested"]["value"]
    columns[column] = figure["value"]
    columns |= {f"{column} {part}": figure[part] for part in PARTS}
    if figure["reason"] is not None:
        columns[f"{column} reason"] = figure["reason"]
    return columns
