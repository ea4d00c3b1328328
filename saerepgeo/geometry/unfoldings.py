"""Spectra of a tensor [prompt, position, feature] by mode, where only some positions are real."""

from typing import NamedTuple

import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import Points
from saerepgeo.geometry.clouds.conversion import SPARSE_SHARE, as_float64, check_labels_of
from saerepgeo.geometry.clouds.entries import unit_of
from saerepgeo.geometry.rank import numerical_rank
from saerepgeo.types import Float, Int

MAX_ROWS = 2**15
"""Prompts or positions, at most: their Gram matrix takes 8 GiB."""
MODES = ("prompt", "position", "feature")
"""Axis that the rows of an unfolding belong to."""

Rule = str | float
"""`"eps"`, `"gavish-donoho"`, or a share of the largest singular value."""


class ModeSpectra(NamedTuple):
    """Singular values of the unfoldings by mode, largest first, and what thresholds depend on."""

    values: dict[str, Float[Tensor, "value"]]
    shapes: dict[str, tuple[int, int]]
    """Of the unfoldings, features that are 0 throughout left out."""
    n_active: int
    """Features that are not 0 throughout."""
    n_points: int


@torch.no_grad()
def mode_spectra(
    points: Points, prompts: Int[Tensor, "point"], positions: Int[Tensor, "point"]
) -> ModeSpectra:
    """Return the singular values of the unfoldings of X[prompts, positions] = points, else 0.

    Masked positions are zeros of the tensor and add nothing to G_k = X_(k) X_(k)ᵀ, so all three are
    read off the Gram matrix of the points there are, in float64. Singular values below about
    1e-7·σ₁ are rounding, far under what float32 data resolve. Features that are 0 throughout are
    left out. Pairs (prompt, position) are distinct. No points give empty spectra. Raises ValueError
    for integer or non-finite points, and numbers of prompts or positions that are not 0, 1, ….
    """
    x = as_float64(points)
    for name, numbers in (("prompts", prompts), ("positions", positions)):
        check_labels_of(points, numbers, name)
        if len(x) and not 0 <= int(numbers.min()) <= int(numbers.max()) < MAX_ROWS:
            raise ValueError(f"`{name}` must lie in 0…{MAX_ROWS - 1}, got {numbers}")
    prompts, positions = prompts.long(), positions.long()
    unit = unit_of(x)
    x = x / unit
    active = (x != 0).any(0)
    n_active, n_points = int(active.sum()), len(x)
    x = x[:, active]
    n_prompts, n_positions = (
        int(index.max()) + 1 if n_points else 0 for index in (prompts, positions)
    )
    gram = _gram(x)
    matrices = {
        "prompt": _contract(gram, prompts, positions, n_prompts),
        "position": _contract(gram, positions, prompts, n_positions),
        "feature": gram if n_points <= n_active else x.T @ x,
    }
    shapes = {
        "prompt": (n_prompts, n_positions * n_active),
        "position": (n_positions, n_prompts * n_active),
        "feature": (n_active, n_points),
    }
    values = {
        name: torch.linalg.eigvalsh(matrix).clamp(min=0).sqrt().flip(0)[: min(shapes[name])] * unit
        for name, matrix in matrices.items()
    }
    return ModeSpectra(values, shapes, n_active, n_points)


def rank_by_rule(spectra: ModeSpectra, mode: str, rule: Rule) -> int:
    """Return the rank of one unfolding of float32 data.

    `rule` is `"eps"` or `"gavish-donoho"` (see `numerical_rank`), or a number: the share of the
    largest singular value above which a value counts.
    """
    values = spectra.values[mode]
    top = float(values[0]) if len(values) else 0.0
    tolerance = float(rule) * top if isinstance(rule, (int, float)) else rule
    return int(numerical_rank(values, spectra.shapes[mode], tolerance, dtype=torch.float32))  # type: ignore[arg-type]


def _gram(x: Tensor) -> Tensor:
    if x.device.type != "cpu" or int((x != 0).sum()) > SPARSE_SHARE * x.numel():
        return x @ x.T
    rows = sparse.csr_matrix(x.numpy())
    return torch.from_numpy((rows @ rows.T).toarray())


def _contract(gram: Tensor, rows: Tensor, shared: Tensor, size: int) -> Tensor:
    """Return Σ over `shared` of the points' inner products, by `rows`."""
    matrix = gram.new_zeros(size, size)
    for value in shared.unique():
        members = (shared == value).nonzero()[:, 0]
        at = rows[members]
        matrix[at[:, None], at] += gram[members[:, None], members]
    return matrix
