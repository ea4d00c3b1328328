"""How much of the language model's prediction survives the SAE in its place."""

from typing import Any

from torch import Tensor

from saerepgeo.geometry.clouds.entries import check_finite
from saerepgeo.metrics.geometry_metric import Count, EstimateMetric, FloatSum
from saerepgeo.types import Estimate, Float


class _Recovered(EstimateMetric):
    """(zero − sae)/(zero − clean) out of the sums of per-token values.

    The share flatters where zero ablation is catastrophic: after `compute()` `raw` holds the three
    means in nats. Values that are not finite, or not of one length, raise ValueError.
    """

    higher_is_better = True
    clean: FloatSum
    zero: FloatSum
    sae: FloatSum
    n_tokens: Count

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.raw: dict[str, float] = {}

    def _add(self, **values: Tensor) -> None:
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        if len(set(shapes.values())) != 1 or values["sae"].ndim != 1:
            raise ValueError(f"expected values [token] of one length, got shapes {shapes}.")
        for name, value in values.items():
            check_finite(value, name)
            setattr(self, name, getattr(self, name) + value.detach().double().sum())
        self.n_tokens += len(values["sae"])

    def estimate(self) -> Estimate:
        n = int(self.n_tokens)
        if not n:
            return Estimate.undefined("no tokens")
        lost = self.zero - self.clean
        rounding = 1e-12 * (self.zero.abs() + self.clean.abs())
        if not lost.abs() > rounding:
            return Estimate.undefined("zero ablation loses nothing that could be recovered", n)
        return Estimate((self.zero - self.sae) / lost, n, 0)

    def compute(self) -> Any:
        n = int(self.n_tokens)  # here the states are those of all processes
        sums = {"clean": self.clean, "zero": self.zero, "sae": self.sae}
        self.raw = {name: total.item() / n for name, total in sums.items()} if n else {}
        return super().compute()

    def reset(self) -> None:
        super().reset()
        self.raw = {}


class CrossEntropyRecovered(_Recovered):
    """Share of the loss between zero ablation and the clean model that the SAE recovers.

    (CE_zero − CE_sae)/(CE_zero − CE_clean), CE the mean next-token cross entropy with the clean
    residuals, zeros, or reconstructions at the hook. 1: nothing lost; 0: no better than zeros;
    outside [0, 1] where the SAE helps or is worse than zeros. `raw` holds the means after
    `compute()`. No tokens, or CE_zero = CE_clean: undefined.

    >>> import torch
    >>> metric = CrossEntropyRecovered()
    >>> metric.update(torch.tensor([2.0]), torch.tensor([12.0]), torch.tensor([3.0]))
    >>> metric.compute().item(), metric.raw["sae"]
    (0.9, 3.0)
    """

    def update(
        self,
        clean: Float[Tensor, "token"],
        zero: Float[Tensor, "token"],
        sae: Float[Tensor, "token"],
    ) -> None:
        self._add(clean=clean, zero=zero, sae=sae)


class KLRecovered(_Recovered):
    """Share of the divergence caused by zero ablation that the SAE avoids.

    1 − KL(p_clean‖p_sae)/KL(p_clean‖p_zero), both means over tokens; unlike the cross entropy it
    cannot be recovered by luck. No tokens, or KL_zero = 0: undefined.

    >>> import torch
    >>> metric = KLRecovered()
    >>> metric.update(zero=torch.tensor([4.0, 6.0]), sae=torch.tensor([1.0, 0.0]))
    >>> metric.compute().item()
    0.9
    """

    def update(self, zero: Float[Tensor, "token"], sae: Float[Tensor, "token"]) -> None:
        self._add(zero=zero, sae=sae)
