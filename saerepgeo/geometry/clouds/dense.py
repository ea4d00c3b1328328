"""Points by all their coordinates."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from saerepgeo.geometry.clouds.cloud import RowCloud
from saerepgeo.geometry.clouds.entries import check_matrix
from saerepgeo.types import Float, Int


class DenseCloud(RowCloud):
    """Points as rows of a float64 matrix, in units of `scale`; centered by whoever makes it."""

    entries_at_once = 1 << 19  # 4 MiB, about a cache

    def __init__(self, x: Float[Tensor, "point dim"], scale: float = 1.0) -> None:
        check_matrix(x)
        x = x.detach().double()
        super().__init__(x, x, scale, x.device)
        self.norms, self.n_terms = self.x.square().sum(1), x.shape[1]
        self.rows_at_once = max(1, (1 << 23) // max(1, self.n_points))  # 64 MiB

    def take(self, index: Int[Tensor, "kept"]) -> "DenseCloud":
        return DenseCloud(self.x[index], self.scale)

    def distances_from(self, index: int) -> np.ndarray:
        norms = self.norms + self.norms[index]
        squares = torch.addmv(norms, self.x, self.x[index], alpha=-2)
        return squares.clamp_(min=0).sqrt_().mul_(self.scale).cpu().numpy()

    def dense(self, index: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        return self.x[index]

    def _gram_rows(self, precision: torch.dtype) -> Callable[[Tensor], Tensor]:
        x, norms = self.x.to(precision), self.norms.to(precision)
        return lambda rows: torch.addmm(norms, x[rows], x.T, alpha=-2)

    def _squares(self, rows: Tensor, others: Tensor) -> Tensor:
        return (self.x[others] - self.x[rows, None]).square().sum(2)
