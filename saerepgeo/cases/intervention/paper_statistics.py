"""The paper's own evidence, on its own protocol."""

from collections.abc import Iterable, Mapping
from typing import Any

from saerepgeo.cases.statistics import correlations
from saerepgeo.report.results import group_rows


def paper_statistic(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the correlation of the distance kept and the error, as the paper reads them.

    Over the rows of protocol `paper` of `intervention_analysis_results_icd_monge.csv`, for each
    concept and loss over its scale factors; NaN for a constant column. The points are of one random
    walk each: neighboring ones are no independent draws, and none compares with a control.
    """
    papers = (row for row in rows if row["protocol"] == "paper")
    shifts = [row for row in papers if row["intervention"] == "centroid_shift"]
    found = []
    for key, own in group_rows(shifts, "model", "concept", "loss_type").items():
        model, concept, loss_type = map(str, key)
        distances = [float(row["best_inter_cluster_dist"]) for row in own]
        pearson, p_value, spearman = correlations(distances, [float(r["mse_loss"]) for r in own])
        sentence = (
            f"{concept}, {loss_type}: Pearson {pearson:+.2f} (p = {p_value:.2g}), Spearman "
            f"{spearman:+.2f} of distance and mse over {len(own)} scale factors"
        )
        about = {"model": model, "concept": concept, "loss_type": loss_type, "n": len(own)}
        figures = {"pearson": pearson, "pearson_p": p_value, "spearman": spearman}
        found.append(about | figures | {"sentence": sentence})
    return found
