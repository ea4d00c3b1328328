"""The paper's own evidence, on its own protocol."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from saerepgeo.cases.statistics import correlations


def paper_statistic(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the correlation of the distance kept and the error, as the paper reads them.

    Over the rows of protocol `paper` of `intervention_analysis_results_icd_monge.csv`, for each
    concept and loss over its scale factors. The correlation is of points of one random walk each:
    neighboring points are no independent draws, and none compares with a control. A constant
    column gives NaN.
    """
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["protocol"] == "paper" and row["intervention"] == "centroid_shift":
            key = (str(row["model"]), str(row["concept"]), str(row["loss_type"]))
            groups[key].append((float(row["best_inter_cluster_dist"]), float(row["mse_loss"])))
    found = []
    for (model, concept, loss_type), pairs in groups.items():
        pearson, p_value, spearman = correlations(*zip(*pairs, strict=True))
        sentence = (
            f"{concept}, {loss_type}: Pearson {pearson:+.2f} (p = {p_value:.2g}), Spearman "
            f"{spearman:+.2f} of distance and mse over {len(pairs)} scale factors"
        )
        about = {"model": model, "concept": concept, "loss_type": loss_type, "n": len(pairs)}
        figures = {"pearson": pearson, "pearson_p": p_value, "spearman": spearman}
        found.append(about | figures | {"sentence": sentence})
    return found
