"""Metrics beside what chance gives."""

from typing import Any

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import PermutationTest, null_test
from saerepgeo.metrics.cloud_metric import evaluate
from saerepgeo.metrics.wrappers.nulls import GaussianNull, Null, RandomPairing
from saerepgeo.metrics.wrappers.subsamples import random_sources
from saerepgeo.metrics.wrappers.wrapped import CloudWrapper, Figure, Metrics
from saerepgeo.types import Estimate


class NullTest(CloudWrapper):
    """Metrics beside their distribution under a null: `{name}`, `{name}/null` and `{name}/p`.

    p = (1 + draws as extreme)/(1 + n_draws), as each metric's `alternative` says; `null` is the
    mean over draws.

    Args:
        null: by default a Gaussian cloud of the same covariance, for pairs a random pairing.

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
        super().__init__(metrics, seed, **kwargs)
        if n_draws < 0:
            raise ValueError(f"`n_draws` must be ≥ 0, got {n_draws}")
        self.null_model: Null = null or (RandomPairing() if self.is_of_pairs else GaussianNull())
        self.n_draws = n_draws

    def tests(
        self, *clouds: LabeledCloud, observed: dict[str, Estimate] | None = None
    ) -> dict[str, PermutationTest]:
        """Return the test of every figure of clouds, whose `observed` figures may be known."""
        metrics, first = self.drawn, clouds[0]
        if not metrics or not self.n_draws or not first.n_points:
            return {}
        known = evaluate(metrics, *clouds) if observed is None else dict(observed)
        if self.is_of_pairs:
            metrics = [m for m in metrics if m.stem in known and known[m.stem].reason is None]
        count = self.null_model.n_sources
        on_paths = [metric for metric in metrics if metric.reads_sources]
        if count is not None and on_paths:  # from as many points as in draws: exchangeable
            sources = random_sources(first.n_points, count, f"{first.name}/tested", self.draw_seed)
            known |= evaluate(on_paths, first.with_sources(sources))
        draws = self.null_model.values(metrics, clouds, self.n_draws, self.draw_seed)
        return {
            name: null_test(float(known[name]), values, self.metric_of(name).alternative)
            for name, values in draws.items()
            if name in known
        }

    def results(self, *clouds: LabeledCloud) -> dict[str, Figure]:
        whole = evaluate(self.metrics.values(), *clouds)
        tests = self.tests(*clouds, observed=whole)
        return {name: Figure(figure, test=tests.get(name)) for name, figure in whole.items()}
