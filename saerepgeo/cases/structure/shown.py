"""What the report page draws of a concept and no table holds: places, trees, spectra, nulls."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saerepgeo.cases.structure.figures import principal_plane
from saerepgeo.files import write_json
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.graphs import minimum_spanning_tree
from saerepgeo.types import ConceptActivations, Float

N_COMPONENTS = 100
"""Of a spectrum."""
DIGITS = 5


def write_shown(
    path: Path, model: str, batch: ConceptActivations, prompts: Sequence[str], parts: Sequence[Any]
) -> None:
    """Write the spaces of protocol `sound`, each on three principal components, as JSON.

    Points are the items' mentions. Each space is turned so that it lies on the residuals as well as
    a rotation of its three components can: nothing is stretched. `spectrum` holds the variance
    share of the components of all points; `tree` the edges over the items' centroids, found in all
    dimensions; `nulls` the draws that stand behind p, by metric.
    """
    spaces: list[dict[str, Any]] = []
    first: Tensor | None = None
    for part in parts:
        cloud: LabeledCloud = part["cloud"]
        rows = cloud.labeled
        if part["protocol"] != "sound" or not len(rows):
            continue
        flat, share = principal_plane(cloud.coordinates(rows), 3)
        flat = flat if first is None else _turned(flat, first)
        first = flat if first is None else first
        present, where = cloud.labels[rows].unique(return_inverse=True)
        counts = torch.bincount(where).double()[:, None]
        centers = torch.zeros(len(present), 3).double().index_add_(0, where, flat) / counts
        tree = minimum_spanning_tree(cloud.item_centers)
        spaces.append(
            {"space": part["space"].name, "sae": part["sae"], "n_points": cloud.n_points}
            | {"points": _short(flat), "share": share, "spectrum": _spectrum(cloud)}
            | {"items": cloud.labels[rows].tolist(), "prompts": cloud.prompts[rows].tolist()}
            | {"centers": _short(centers), "present": present.tolist()}
            | {"tree": tree.edges.tolist(), "lengths": _short(tree.lengths)}
            | {"nulls": {name: _short(torch.tensor(x)) for name, x in part["nulls"].items()}}
        )
    about = {"model": model, "concept": batch.concept, "items": list(batch.items)}
    write_json(path, about | {"prompts": list(prompts), "spaces": spaces}, indent=0)


def _turned(points: Float[Tensor, "point 3"], to: Float[Tensor, "point 3"]) -> Tensor:
    u, _, v = torch.linalg.svd(points.T @ to)
    return points @ u @ v


def _spectrum(cloud: LabeledCloud) -> Any:
    if cloud.is_large:
        return []
    x = cloud.coordinates()
    squares = torch.linalg.svdvals(x - x.mean(0)).square()
    return _short(squares[:N_COMPONENTS] / squares.sum().clamp(min=1e-300))


def _short(values: Tensor) -> Any:
    """Return numbers of few digits as lists."""
    if values.dim() > 1:
        return [_short(row) for row in values]
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
