"""Metrics beside what chance gives."""

from typing import Any

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import PermutationTest, null_test
from saerepgeo.geometry.sequential_nulls import n_needed, sequential_test
from saerepgeo.metrics.cloud_metric import CloudFigure, evaluate
from saerepgeo.metrics.wrappers.nulls import Draws, GaussianNull, Null, RandomPairing
from saerepgeo.metrics.wrappers.subsamples import random_sources
from saerepgeo.metrics.wrappers.wrapped import CloudWrapper, Figure, Metrics
from saerepgeo.types import Estimate


class NullTest(CloudWrapper):
    """Metrics beside their distribution under a null: `{name}`, `{name}/null` and `{name}/p`.

    p = (1 + draws as extreme)/(1 + n_draws), as each metric's `alternative` says; `null` is the
    mean over draws.

    Args:
        null: by default a Gaussian cloud of the same covariance, for pairs a random pairing.
        n_draws: draws of the null, at most.
        n_extreme: draws as extreme after which a figure's null stops, which gives the p-values of
            `geometry.sequential_test`; 0: all are made.

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
        n_extreme: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(metrics, seed, **kwargs)
        if n_draws < 0 or n_extreme < 0:
            given = f"{n_draws} and {n_extreme}"
            raise ValueError(f"`n_draws` and `n_extreme` must be ≥ 0, got {given}")
        self.null_model: Null = null or (RandomPairing() if self.is_of_pairs else GaussianNull())
        self.n_draws, self.n_extreme = n_draws, n_extreme

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
        if self.n_extreme:
            draws = self._draws_until_decided(metrics, clouds, known)
        else:
            draws = self.null_model.values(metrics, clouds, self.n_draws, self.draw_seed)
        return {
            name: self._test(name, float(known[name]), values)
            for name, values in draws.items()
            if name in known
        }

    def _test(self, name: str, observed: float, draws: list[float]) -> PermutationTest:
        alternative = self.metric_of(name).alternative
        if self.n_extreme:
            return sequential_test(observed, draws, alternative, self.n_extreme)
        return null_test(observed, draws, alternative)

    def _draws_until_decided(
        self,
        metrics: list[CloudFigure],
        clouds: tuple[LabeledCloud, ...],
        known: dict[str, Estimate],
    ) -> Draws:
        """Return draws of every figure, those of a metric until all its figures are decided."""
        sample = self.null_model.sampler(clouds, self.draw_seed)
        found: Draws = {}

        def is_open(metric: CloudFigure) -> bool:
            return any(
                n_needed(float(known[name]), draws, metric.alternative, self.n_extreme) is None
                for name, draws in found.items()
                if name in known and self.metric_of(name) is metric
            )

        start, size = 0, 2 * self.n_extreme  # what no side decides sooner
        while metrics and start < self.n_draws:
            numbers = range(start, min(start + size, self.n_draws))
            for name, values in sample(metrics, numbers).items():
                found.setdefault(name, []).extend(values)
            metrics = [metric for metric in metrics if is_open(metric)]
            start, size = numbers.stop, 2 * size
        return found

    def results(self, *clouds: LabeledCloud) -> dict[str, Figure]:
        whole = evaluate(self.metrics.values(), *clouds)
        tests = self.tests(*clouds, observed=whole)
        return {name: Figure(figure, test=tests.get(name)) for name, figure in whole.items()}
