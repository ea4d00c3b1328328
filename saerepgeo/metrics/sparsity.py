"""How many latents an SAE uses: at a point, and at all."""

from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.conversion import check_points
from saerepgeo.metrics.geometry_metric import Count, EstimateMetric, FloatSum
from saerepgeo.types import Estimate, Float, SparseLatents


class L0(EstimateMetric):
    """Mean number of latents that are not 0, a point; no points: undefined.

    >>> import torch
    >>> metric = L0()
    >>> metric.update(torch.tensor([[0.0, 1.5], [0.0, 0.0]]))
    >>> metric.compute().item()
    0.5
    """

    n_active: Count
    n_points: Count

    def update(self, latents: Float[Tensor, "point d_sae"] | SparseLatents) -> None:
        values, _ = _checked(latents)
        self.n_active += values.count_nonzero()
        self.n_points += len(values)

    def estimate(self) -> Estimate:
        return self.ratio(self.n_active, self.n_points, self.n_points)


class L1(EstimateMetric):
    """Mean over points of the sum of |effective latents|, in residual units; no points: undefined.

    >>> import torch
    >>> metric = L1()
    >>> metric.update(torch.tensor([[0.0, 1.5], [2.0, 0.5]]))
    >>> metric.compute().item()
    2.0
    """

    magnitude: FloatSum
    n_points: Count

    def update(self, effective_latents: Float[Tensor, "point d_sae"] | SparseLatents) -> None:
        values, _ = _checked(effective_latents)
        self.magnitude += values.double().abs().sum()
        self.n_points += len(values)

    def estimate(self) -> Estimate:
        return self.ratio(self.magnitude, self.n_points, self.n_points)


class DeadFraction(EstimateMetric):
    """Share of the latents that were active at no point.

    A share means something only beside the number of tokens, `n_points`, which is `n_used`.
    `activation_counts [d_sae]` over `n_points` are the firing frequencies. No points: undefined.

    >>> metric = DeadFraction(d_sae=4)
    >>> metric.update(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]))
    >>> metric.compute().item()
    0.5
    """

    higher_is_better = False
    activation_counts: Tensor
    n_points: Count

    def __init__(self, d_sae: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if d_sae < 1:
            raise ValueError(f"`d_sae` must be at least 1, got {d_sae}.")
        self.d_sae = d_sae
        self.add_state("activation_counts", torch.zeros(d_sae, dtype=torch.long), "sum")

    def update(self, latents: Float[Tensor, "point d_sae"] | SparseLatents) -> None:
        values, indices = _checked(latents)
        width = latents.d_sae if isinstance(latents, SparseLatents) else values.shape[1]
        if width != self.d_sae:
            raise ValueError(f"`latents` must have d_sae={self.d_sae} columns, got {width}.")
        if indices is not None:
            active = indices[values != 0]
            self.activation_counts += torch.bincount(active, minlength=self.d_sae)
        else:
            self.activation_counts += values.count_nonzero(0)
        self.n_points += len(values)

    def estimate(self) -> Estimate:
        n_dead = (self.activation_counts == 0).sum()
        n_latents = n_dead.new_tensor(self.d_sae if self.n_points else 0)
        return self.ratio(n_dead, n_latents, self.n_points)


class ActivationFrequencies(DeadFraction):
    """How many latents fire often: at more than a hundredth, and a tenth, of the points.

    `freq_over_1_percent`, `freq_over_10_percent`: their share of the latents. The same
    `normalized_…`: their share of all activations. No points, or no activation: undefined.

    >>> import torch
    >>> metric = ActivationFrequencies(d_sae=4)
    >>> metric.update(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]]))
    >>> metric.compute()["freq_over_10_percent"].item()
    0.5
    """

    higher_is_better = None  # type: ignore[assignment]

    def estimates(self) -> dict[str, Estimate]:
        counts, n = self.activation_counts, self.n_points
        n_latents, found = n.new_tensor(self.d_sae if n else 0), {}
        for percent in (1, 10):
            is_frequent, name = 100 * counts > percent * n, f"freq_over_{percent}_percent"
            found[name] = self.ratio(is_frequent.sum(), n_latents, n)
            reason = "no latent is active" if n else "no points"
            of_all = self.ratio(counts[is_frequent].sum(), counts.sum(), n, reason)
            found[f"normalized_{name}"] = of_all
        return found


def _checked(latents: Tensor | SparseLatents) -> tuple[Tensor, Tensor | None]:
    """Return values and, of sparse latents, their indices, each once a point."""
    check_points(latents, "latents")
    if isinstance(latents, SparseLatents):
        values, indices, _ = latents.merged()
        return values.detach(), indices
    return (latents if latents.layout == torch.strided else latents.to_dense()).detach(), None
