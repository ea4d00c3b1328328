"""A bounded sample of points that does not depend on batches, order or processes."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.checks import as_float64
from saerepgeo.metrics.estimates import EstimateMetric
from saerepgeo.metrics.geometry_metric import MergedStateMetric
from saerepgeo.types import Float, Int, SparseLatents

__all__ = ["PointReservoir"]

ROWS_PER_BLOCK = 1024


class PointReservoir(EstimateMetric, MergedStateMetric):
    """A metric over at most `max_points` points, those of the smallest hash of their content.

    Whether a point is kept depends on the point, on `seed` and on the other points there are, never
    on when or where it came: any split into batches and processes, in any order, leaves the same
    sample, and merging two samples is the sample of both. Up to `max_points` points, nothing is
    lost; of more, a uniform sample of the distinct points remains, duplicates with them.

    Points are kept in `dtype`, rounded to it before they are hashed: max_points · dim entries.
    `SparseLatents` are kept dense. Integer and non-finite points are refused with a ValueError, as
    is a batch of another dimension.

    Args:
        max_points: size of the sample.
        seed: chooses among samples.
        dtype: float32 or float64.
    """

    points: Tensor
    keys: Tensor
    n_seen: Tensor

    def __init__(
        self,
        max_points: int = 10_000,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if max_points < 1:
            raise ValueError(f"`max_points` must be ≥ 1, got {max_points}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}")
        self.max_points = max_points
        self.seed = seed
        self.add_state("points", torch.zeros(0, 0, dtype=dtype), dist_reduce_fx="cat")
        self.add_state("keys", torch.zeros(0, dtype=torch.long), dist_reduce_fx="cat")
        self.add_count("n_seen")

    @property
    def n_left_out(self) -> int:
        """Points seen that are not in the sample."""
        return int(self.n_seen) - len(self.points)

    def update(self, points: Float[Tensor, "point dim"] | SparseLatents) -> None:
        """Add points."""
        # adding 0 makes −0 and 0 one point
        x = as_float64(points).detach().to(self.points) + 0.0
        keys = _content_keys(x, self.seed)
        self._set(
            self.merge(
                [self._state(), {"points": x, "keys": keys, "n_seen": keys.new_tensor(len(x))}]
            )
        )

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the sample of the points of several samples."""
        filled = [state for state in states if len(state["keys"])] or list(states[:1])
        dims = {state["points"].shape[1] for state in filled}
        if len(dims) > 1:
            raise ValueError(f"`points` must have equally many columns, got {sorted(dims)}")
        keys = torch.cat([state["keys"] for state in filled])
        kept = keys.argsort(stable=True)[: self.max_points]
        points = torch.cat([state["points"] for state in filled])[kept]
        n_seen = torch.stack([state["n_seen"] for state in states]).sum()
        return {"points": points, "keys": keys[kept], "n_seen": n_seen}

    def _state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._defaults}


def _content_keys(x: Float[Tensor, "point dim"], seed: int) -> Int[Tensor, "point"]:
    """Return a 63-bit hash of each row: equal rows, and hardly ever others, have equal keys.

    A random linear form of the bits modulo 2⁶⁴ (universal: Dietzfelbinger 1996), then the finalizer
    of SplitMix64, for only the high bits of the form are well mixed.
    """
    factors = _factors(x.shape[1], seed).to(x.device)
    bits = x.view(torch.int32 if x.dtype == torch.float32 else torch.int64)
    blocks = [(part.long() * factors).sum(1) for part in bits.split(ROWS_PER_BLOCK)]
    z = torch.cat(blocks) if blocks else factors.new_zeros(0)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        z = (z ^ _logical_shift(z, shift)) * factor
    return _logical_shift(z ^ _logical_shift(z, 31), 1)


def _logical_shift(z: Tensor, by: int) -> Tensor:
    return (z >> by) & ((1 << (64 - by)) - 1)


@lru_cache(maxsize=8)
def _factors(dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**63), 2**63 - 1, (dim,), generator=generator) | 1
