"""Active latents as flat (point, latent) pairs: a CSR matrix without its values."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from scipy import sparse
from torch import Tensor

from saerepgeo.types import Float, Int, SparseLatents

Points = Float[Tensor, "point d_model"]
Encoder = Float[Tensor, "d_model d_sae"]
Decoder = Float[Tensor, "d_sae d_model"]
PerLatent = Float[Tensor, "d_sae"]
PerPair = Float[Tensor, "pair"]
Latents = Float[Tensor, "point d_sae"] | SparseLatents


class LatentOrder(NamedTuple):
    """The pairs sorted by latent, and by point within a latent."""

    order: Int[Tensor, "pair"]
    """Position of each sorted pair among the pairs."""
    points: Int[Tensor, "pair"]
    offsets: Int[Tensor, "d_sae_plus_1"]
    """Latent j has the sorted pairs offsets[j] .. offsets[j + 1]."""


@dataclass(eq=False)
class Pairs:
    """Which latents each point has: point p has `columns[offsets[p] : offsets[p + 1]]`."""

    columns: Int[Tensor, "pair"]
    offsets: Int[Tensor, "point_plus_1"]
    d_sae: int
    per_point: int | None = None
    """Number of pairs of every point where it is the same for all, else None."""

    @classmethod
    def of_rows(cls, indices: Int[Tensor, "point k"], d_sae: int) -> "Pairs":
        """Return the pairs of points that have k latents each."""
        n_points, k = indices.shape
        offsets = torch.arange(n_points + 1, device=indices.device) * k
        return cls(indices.reshape(-1), offsets, d_sae, k)

    @property
    def n_points(self) -> int:
        """Number of points, those without a pair included."""
        return self.offsets.shape[0] - 1

    @cached_property
    def points(self) -> Int[Tensor, "pair"]:
        """The point of each pair."""
        counts = self.offsets.diff()
        numbers = torch.arange(self.n_points, device=counts.device)
        return torch.repeat_interleave(numbers, counts, output_size=self.columns.shape[0])

    @cached_property
    def by_latent(self) -> LatentOrder:
        """The pairs in the order of their latents, the same in every run; found once and kept."""
        if self.columns.device.type != "cpu":
            columns, order = torch.sort(self.columns.int(), stable=True)
            bounds = torch.arange(self.d_sae + 1, device=columns.device, dtype=columns.dtype)
            return LatentOrder(order, self.points[order], torch.searchsorted(columns, bounds))
        # a counting sort in one thread: torch's parallel sort is slower here, on busy cores 50x
        numbers = torch.arange(self.columns.shape[0], dtype=torch.int32)
        parts = (part.int().numpy() for part in (numbers, self.columns, self.offsets))
        rows = sparse.csr_matrix(tuple(parts), shape=(self.n_points, self.d_sae)).tocsc()
        return LatentOrder(*map(torch.from_numpy, (rows.data, rows.indices, rows.indptr)))


class ActiveLatents(NamedTuple):
    """Values of pairs, and the pre-activations (times their gain) that they were made of."""

    values: PerPair
    pre: PerPair
    pairs: Pairs


class PairedLatents(SparseLatents):
    """`SparseLatents` that remember the flat pairs they were padded from."""

    active: ActiveLatents


def padded(values: PerPair, pre: PerPair, pairs: Pairs) -> PairedLatents:
    """Return the latents with a common number per point, filled up with zeros at latent 0.

    Differentiable in the values. Where every point has k pairs the result is a view of them.
    """
    active = ActiveLatents(values, pre, pairs)
    columns, width = pairs.columns, pairs.per_point
    if width is None:
        width = max(int(pairs.offsets.diff().max()), 1) if pairs.n_points else 1
        places = torch.arange(len(values), device=values.device) - pairs.offsets[pairs.points]
        flat = pairs.points * width + places
        columns = columns.new_zeros(pairs.n_points * width).scatter(0, flat, columns)
        values = values.new_zeros(pairs.n_points * width).scatter(0, flat, values)
    shape = (pairs.n_points, width)
    latents = PairedLatents(values.view(shape), columns.view(shape), pairs.d_sae)
    latents.active = active
    return latents


def as_active(latents: SparseLatents) -> ActiveLatents:
    """Return the flat pairs of latents: those they were padded from, else one pair per entry."""
    if isinstance(latents, PairedLatents) and hasattr(latents, "active"):
        return latents.active
    values = latents.values.reshape(-1)
    return ActiveLatents(values, values, Pairs.of_rows(latents.indices, latents.d_sae))
