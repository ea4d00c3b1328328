"""How much of the language model's prediction survives the SAE in its place."""

from typing import Any

from torch import Tensor

from saerepgeo.geometry.clouds.conversion import check_finite
from saerepgeo.metrics.estimates import EstimateMetric
from saerepgeo.types import Estimate, Float


class _Recovered(EstimateMetric):
    """(zero − sae)/(zero − clean) out of the sums of per-token values."""

    higher_is_better = True
    clean: Tensor
    zero: Tensor
    sae: Tensor
    n_tokens: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("clean", "zero", "sae"):
            self.add_sum(name)
        self.add_count("n_tokens")
        self.raw: dict[str, float] = {}

    def _add(self, **values: Tensor) -> None:
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        if len(set(shapes.values())) != 1 or values["sae"].ndim != 1:
            raise ValueError(f"expected values [token] of one length, got shapes {shapes}.")
        for name, value in values.items():
            check_finite(value, name)
            setattr(self, name, getattr(self, name) + value.detach().double().sum())
        self.n_tokens += len(values["sae"])

    def means(self) -> dict[str, float]:
        """Return `clean`, `zero` and `sae` per token, in nats; empty for no tokens."""
        if not self.n_tokens:
            return {}
        n = int(self.n_tokens)
        return {name: getattr(self, name).item() / n for name in ("clean", "zero", "sae")}

    def estimate(self) -> Estimate:
        """Return the share recovered with the number of tokens."""
        n = int(self.n_tokens)
        if n == 0:
            return Estimate.undefined("no tokens")
        lost = self.zero - self.clean
        rounding = 1e-12 * (self.zero.abs() + self.clean.abs())
        if not lost.abs() > rounding:
            return Estimate.undefined("zero ablation loses nothing that could be recovered", n)
        return Estimate((self.zero - self.sae) / lost, n, 0)

    def compute(self) -> Tensor:
        """Return the share over all processes, and keep `means()` of all of them in `raw`."""
        self.raw = self.means()
        return super().compute()

    def reset(self) -> None:
        """Forget all tokens."""
        super().reset()
        self.raw = {}


class CrossEntropyRecovered(_Recovered):
    """Share of the loss between zero ablation and the clean model that the SAE recovers.

    (CE_zero − CE_sae)/(CE_zero − CE_clean), CE the mean next-token cross entropy with the clean
    residuals, zeros, or reconstructions at the hook. 1: nothing lost; 0: no better than zeros;
    outside [0, 1] where the SAE helps or is worse than zeros. The raw values are in `raw` after
    `compute()` (in nats), for the share flatters where zero ablation is catastrophic.

    Accumulates sums over tokens. No tokens, or CE_zero = CE_clean: undefined.

    >>> import torch
    >>> metric = CrossEntropyRecovered()
    >>> clean, zero, sae = torch.tensor([2.0]), torch.tensor([12.0]), torch.tensor([3.0])
    >>> metric.update(clean, zero, sae)
    >>> metric.compute().item(), metric.raw["sae"]
    (0.9, 3.0)
    """

    def update(
        self,
        clean: Float[Tensor, "token"],
        zero: Float[Tensor, "token"],
        sae: Float[Tensor, "token"],
    ) -> None:
        """Add cross entropies; ValueError if not finite or not of one length."""
        self._add(clean=clean, zero=zero, sae=sae)


class KLRecovered(_Recovered):
    """Share of the divergence caused by zero ablation that the SAE avoids.

    1 − KL(p_clean‖p_sae)/KL(p_clean‖p_zero), both means over tokens; unlike the cross entropy it
    cannot be recovered by luck. The raw values are in `raw` after `compute()` (nats; `clean` is 0).

    Accumulates sums over tokens. No tokens, or KL_zero = 0: undefined.

    >>> import torch
    >>> metric = KLRecovered()
    >>> metric.update(zero=torch.tensor([4.0, 6.0]), sae=torch.tensor([1.0, 0.0]))
    >>> metric.compute().item()
    0.9
    """

    def update(self, zero: Float[Tensor, "token"], sae: Float[Tensor, "token"]) -> None:
        """Add divergences; ValueError if not finite or not of one length."""
        self._add(zero=zero, sae=sae)
