"""Attention sinks: from which norm on a residual is none of the bulk, seen from a sample."""

import math

import torch
from torch import Tensor

from saerepgeo.types import Float

LARGEST_SHARE = 0.05
"""At most this share of positions is taken for attention sinks."""
LEVEL = 0.01
"""Chance that a bulk without sinks shows such a gap all the same."""
NARROWEST_GAP = 1.5
"""Factor between the norms on both sides of a gap, at least."""


def sink_norm(norms: Float[Tensor, "position"]) -> float:
    """Return the norm ‖x‖ above which a position is an attention sink, from a sample of norms.

    Sinks are apart from the bulk. Logarithms of norms have median m, robust spread s (1.48 times
    the median absolute deviation) and, above, the tail rate β = (q₀.₉ − m)/ln 5. The limit lies in
    the lowest gap above which at most a twentieth of the n positions lie, all beyond
    m + s·√(2 ln n), where a normal bulk ends, and that is wider than s and than ln(K/0.01)·β/k: so
    wide is none of K gaps above k points of an exponential tail, which is one of power-law norms.
    Without such a gap it lies where one further point would make one. Norms that are 0 do not
    count; infinity where fewer than 20 are left.
    """
    logs = norms[norms > 0].double().log().sort(descending=True).values
    n_top = int(LARGEST_SHARE * len(logs))
    if n_top < 1:
        return math.inf
    median = logs.median()
    spread = 1.4826 * (logs - median).abs().median()
    rate = (torch.quantile(logs, 0.9) - median) / math.log(5)
    reach = rate * math.log(n_top / LEVEL)
    above, below = logs[:n_top], logs[1 : n_top + 1]
    least = max(float(spread), math.log(NARROWEST_GAP))
    n_above = torch.arange(1, n_top + 1, device=logs.device)
    is_gap = (above - below > reach / n_above) & (above - below > least)
    is_gap &= above > median + spread * math.sqrt(2 * math.log(len(logs)))
    found = is_gap.nonzero()[:, 0]
    top = below[found[-1]] if len(found) else logs[0]
    limit = top + max(float(reach), least)
    if len(found):
        limit = min(limit, (above[found[-1]] + top) / 2)
    return float(limit.exp())
