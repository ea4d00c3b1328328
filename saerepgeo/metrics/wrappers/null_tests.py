"""Metrics beside what chance gives."""

from collections.abc import Sequence
from typing import Any

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import PermutationTest, null_test
from saerepgeo.metrics.cloud_metric import CloudFigure, evaluate
from saerepgeo.metrics.wrappers.nulls import GaussianNull, Null, RandomPairing
from saerepgeo.metrics.wrappers.subsamples import random_sources
from saerepgeo.metrics.wrappers.wrapped import CloudWrapper, Metrics
from saerepgeo.types import Estimate


class NullTest(CloudWrapper):
    """Metrics beside their distribution under a null: `{name}`, `{name}/null` and `{name}/p`.

    p = (1 + draws as extreme)/(1 + n_draws), in the direction that each metric names (see
    `CloudFigure.alternative`); `null` is the mean over draws.

    Args:
        metrics: of one cloud, or of pairs.
        null: what chance is taken to be; by default a Gaussian cloud of the same covariance, for
            pairs a random pairing.
        n_draws: draws of it; the least p-value is 1/(1 + n_draws).
        seed: of the draws.

    >>> import torch
    >>> from saerepgeo.metrics import FisherRatio, PermutedItems
    >>> x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> labels = torch.arange(60) % 2
    >>> metric = NullTest(FisherRatio(), PermutedItems(), n_draws=99)
    >>> metric.update(x + 5 * labels[:, None], labels=labels)
    >>> round(metric.compute()["fisher_ratio/p"].item(), 4)
    0.01
    """

    def __init__(
        self,
        metrics: Metrics,
        null: Null | None = None,
        n_draws: int = 199,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(metrics, **kwargs)
        if n_draws < 0:
            raise ValueError(f"`n_draws` must be ≥ 0, got {n_draws}")
        self.null_model: Null = null or (RandomPairing() if self.is_of_pairs else GaussianNull())
        self.n_draws, self.draw_seed = n_draws, seed

    def tests(
        self, *clouds: LabeledCloud, observed: dict[str, Estimate] | None = None
    ) -> dict[str, PermutationTest]:
        """Return the test of every figure of a cloud, or of a pair.

        Args:
            observed: the figures of the clouds, where they are known.
        """
        metrics = self.drawn
        if not metrics or not self.n_draws or not clouds[0].n_points:
            return {}
        known = evaluate(metrics, *clouds) if observed is None else observed
        if self.is_of_pairs:
            metrics = [m for m in metrics if m.stem in known and known[m.stem].reason is None]
        known = known | self._from_as_many_sources(metrics, clouds[0])
        draws = self.null_model.values(metrics, clouds, self.n_draws, self.draw_seed)
        return {
            name: null_test(float(known[name]), values, self._metric(name).alternative)
            for name, values in draws.items()
            if name in known
        }

    def _metric(self, name: str) -> CloudFigure:
        return self.metrics[name.split("/")[0]]

    def _from_as_many_sources(
        self, metrics: Sequence[CloudFigure], cloud: LabeledCloud
    ) -> dict[str, Estimate]:
        """Return figures of paths from as many points as in draws: exchangeable with them."""
        count = self.null_model.n_sources
        reading = [metric for metric in metrics if metric.reads_sources]
        if count is None or not reading:
            return {}
        sources = random_sources(cloud.n_points, count, f"{cloud.name}/tested", self.draw_seed)
        return evaluate(reading, cloud.with_sources(sources))

    def _figures_of_sample(self) -> dict[str, Estimate]:
        whole = evaluate(list(self.metrics.values()), *self.clouds)
        found = dict(whole)
        for name, test in self.tests(*self.clouds, observed=whole).items():
            found[f"{name}/null"] = whole[name].with_value(test.null_mean)
            found[f"{name}/p"] = whole[name].with_value(test.p_value)
        return found
