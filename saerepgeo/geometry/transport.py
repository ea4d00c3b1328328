"""Optimal transport between two geometries that share no coordinates."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saerepgeo.geometry.clouds.entries import check_finite, check_squares
from saerepgeo.types import Float


class Coupling(NamedTuple):
    """The best coupling found between two metric spaces, and what it costs."""

    value: Float[Tensor, ""]
    """Squared objective, float64; differentiable in both distance matrices."""
    plan: Float[Tensor, "n m"]
    """Mass that point i of the first space shares with point j of the second; detached."""


def gromov_wasserstein(
    c1: Float[Tensor, "n n"],
    c2: Float[Tensor, "m m"],
    p: Float[Tensor, "n"] | None = None,
    q: Float[Tensor, "m"] | None = None,
    *,
    plan: Float[Tensor, "n m"] | None = None,
    n_anchors: int | None = None,
) -> Coupling:
    """Return the coupling of two distance matrices that distorts distances least.

    value = min_T Σ_ijkl |C1_ik − C2_jl|² T_ij T_kl over T ≥ 0, T1 = p, Tᵀ1 = q.

    This is the squared objective, as POT returns it: Mémoli's distance is ½√value. The problem is
    not convex, so POT's conditional gradient descends from several starts and the best is kept:

    - the known correspondence i ↔ i, where n = m and p = q;
    - the `n_anchors` best (None: all) anchor matchings: x₀ ↔ y_j, the others by their distance from
      these;
    - the matching of whole distance profiles (the minimizer of Mémoli's third lower bound);
    - the product coupling p qᵀ, and `plan`, e.g. of the last training step.

    The value is an upper bound of the minimum, exact for the plan returned; the gradient treats the
    plan as fixed, which is right at an optimum (envelope theorem). The weights `p` and `q` of the
    points are uniform by default; both matrices are in the same units. A single point against a
    space gives Σ C² of the space. Raises ValueError for empty, integer, non-finite, non-square or
    asymmetric matrices, and for weights or a `plan` of the wrong shape, negative or not of mass 1.
    Source: Mémoli (2011), *Gromov–Wasserstein distances and the metric approach to object
    matching*; solver: Vayer et al. (2019) in POT.

    >>> near, far = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    >>> round(gromov_wasserstein(near, far).value.item(), 9)
    2.0
    """
    first, second = _checked_distances(c1, "c1"), _checked_distances(c2, "c2")
    p_mass, q_mass = _checked_weights(p, len(first), "p"), _checked_weights(q, len(second), "q")
    check_squares(c1.double(), c2.double(), name="distances")
    best = torch.from_numpy(best_plan(first, second, p_mass, q_mass, plan, n_anchors)).to(c1.device)
    unit = max(first.max(), second.max()) or 1.0
    value = distortion(c1.double() / unit, c2.double() / unit, best)
    return Coupling(value * unit**2, best)


def best_plan(
    c1: np.ndarray,
    c2: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    plan: Float[Tensor, "n m"] | None = None,
    n_anchors: int | None = None,
) -> np.ndarray:
    """Return the plan `[n, m]` of `gromov_wasserstein` for symmetric float64 matrices.

    Only `plan` is checked (ValueError).
    """
    import ot

    unit = max(c1.max(), c2.max()) or 1.0
    problem = c1 / unit, c2 / unit, p, q
    starts = _starts(*problem, n_anchors)
    if plan is not None:
        starts.append(_checked_plan(plan, p, q))
    found = [
        ot.gromov.gromov_wasserstein(*problem, symmetric=True, G0=start, log=True)
        for start in starts
    ]
    best = min(found, key=lambda descended: descended[1]["gw_dist"])[0]
    again: np.ndarray = ot.gromov.gromov_wasserstein(*problem, symmetric=True, G0=best)
    return again


def distortion(
    c1: Float[Tensor, "*pair n n"], c2: Float[Tensor, "*pair m m"], plan: Float[Tensor, "*pair n m"]
) -> Float[Tensor, "*pair"]:
    """Return Σ_ijkl |C1_ik − C2_jl|² T_ij T_kl, never negative, of one plan or of a stack of them.

    Differentiable in the distances. By its three terms, with p = T1 and q = Tᵀ1:
    pᵀC1²p + qᵀC2²q − 2 Σ_ik C1_ik (T C2 Tᵀ)_ik, squares entry by entry.
    """
    p, q = plan.sum(-1), plan.sum(-2)
    own = c1.square() * (p[..., None] * p[..., None, :])
    other = c2.square() * (q[..., None] * q[..., None, :])
    cross = c1 * (plan @ c2 @ plan.mT)
    return ((own - 2 * cross).sum((-2, -1)) + other.sum((-2, -1))).clamp(min=0.0)


def _starts(
    c1: np.ndarray, c2: np.ndarray, p: np.ndarray, q: np.ndarray, n_anchors: int | None
) -> list[np.ndarray]:
    import ot

    starts = [np.outer(p, q)]
    if len(p) == len(q) and np.allclose(p, q):
        starts.append(np.diag(p))
    profiles = ot.dist(_quantiles(c1, p, q), _quantiles(c2, q, p))
    starts.append(ot.emd(p, q, profiles))
    if n_anchors == 0:
        return starts
    terms = ot.gromov.init_matrix(c1, c2, p, q)
    anchored = [ot.emd_1d(c1[0], row, p, q) for row in c2]
    anchored.sort(key=lambda start: float(ot.gromov.gwloss(*terms, start)))
    return starts + anchored[:n_anchors]


def _quantiles(distances: np.ndarray, mass: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return each point's quantile function of distances, on a grid common to both spaces."""
    size = max(len(mass), len(other))
    levels = (np.arange(size) + 0.5) / size
    rows = []
    for row, ranked in zip(distances, np.argsort(distances, axis=1), strict=True):
        position = np.searchsorted(np.cumsum(mass[ranked]), levels)
        rows.append(row[ranked[np.minimum(position, len(row) - 1)]])
    return np.stack(rows)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _checked_distances(c: Tensor, name: str) -> np.ndarray:
    if c.ndim != 2 or c.shape[0] != c.shape[1] or c.shape[0] == 0:
        raise ValueError(f"`{name}` must be a square, non-empty matrix, got {tuple(c.shape)}.")
    check_finite(c, name)
    array = _array(c)
    if np.abs(array - array.T).max() > 1e-4 * np.abs(array).max():
        raise ValueError(f"`{name}` must be symmetric, as distances are.")
    return np.ascontiguousarray((array + array.T) / 2)


def _checked_weights(weights: Tensor | None, n: int, name: str) -> np.ndarray:
    if weights is None:
        return np.full(n, 1.0 / n)
    array = _array(weights)
    if array.shape != (n,) or not (array >= 0).all() or abs(array.sum() - 1) > 1e-4:
        got = f"shape {array.shape}, sum {array.sum():.6g}"
        raise ValueError(f"`{name}` must hold {n} weights ≥ 0 of sum 1, got {got}.")
    return array / array.sum()


def _checked_plan(plan: Tensor, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    array = _array(plan)
    if array.shape != (len(p), len(q)) or not (array >= 0).all():
        raise ValueError(
            f"`plan` must be [{len(p)}, {len(q)}] and ≥ 0, got shape {array.shape}; "
            "start without a plan when the points change."
        )
    if not (np.allclose(array.sum(1), p, atol=1e-6) and np.allclose(array.sum(0), q, atol=1e-6)):
        raise ValueError("`plan` must have the marginals `p` and `q`; start without it.")
    return array
