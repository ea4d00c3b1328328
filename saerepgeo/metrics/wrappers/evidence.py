"""Every figure with what it takes to believe it: its interval and its null."""

from typing import Any

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import PermutationTest
from saerepgeo.metrics.cloud_metric import evaluate
from saerepgeo.metrics.wrappers.null_tests import NullTest
from saerepgeo.metrics.wrappers.nulls import GaussianNull, PermutedItems
from saerepgeo.metrics.wrappers.subsamples import SubsampleInterval, random_sources
from saerepgeo.metrics.wrappers.wrapped import CloudWrapper, Figure, Metrics

N_SOURCES = 512
"""Points whose paths stand for all in the AGD of a large cloud."""


class Evidence(CloudWrapper):
    """Metrics with interval and null: `SubsampleInterval` and, by each metric's null, `NullTest`.

    Of more than `MATRIX_POINTS` points, nulls stand beside the figures of one subsample.

    Args:
        n_subsamples: subsamples behind an interval; 0: no intervals.
        n_nulls: draws of the nulls that are slow: Gaussian clouds, dimension within items.
        n_permutations: draws of the nulls that are fast.
        n_extreme: draws as extreme after which a null stops (see `NullTest`); 0: none stops.

    >>> import torch
    >>> from saerepgeo.metrics import FisherRatio
    >>> labels = torch.arange(60) % 2
    >>> x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) + 5 * labels[:, None]
    >>> metric = Evidence([FisherRatio()], n_subsamples=20, n_permutations=99)
    >>> metric.update(x, labels=labels)
    >>> sorted(metric.compute())
    ['fisher_ratio', 'fisher_ratio/high', 'fisher_ratio/low', 'fisher_ratio/null', 'fisher_ratio/p']
    """

    def __init__(
        self,
        metrics: Metrics,
        n_subsamples: int = 100,
        n_nulls: int = 199,
        n_permutations: int = 499,
        seed: int = 0,
        n_extreme: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(metrics, seed, **kwargs)
        own = list(self.metrics.values())
        self.around = SubsampleInterval(own, n_subsamples, seed=seed)
        if self.is_of_pairs:
            self.tests = [NullTest(own, None, n_permutations, seed, n_extreme)]
            return
        items = [metric for metric in own if metric.null == "items"]
        groups = (
            ([m for m in own if m.null == "gaussian"], GaussianNull(), n_nulls),
            ([m for m in items if m.reads_named], PermutedItems(of_named=True), n_nulls),
            ([m for m in items if not m.reads_named], PermutedItems(), n_permutations),
        )
        self.tests = [
            NullTest(chosen, null, n, seed, n_extreme) for chosen, null, n in groups if chosen
        ]

    def results(self, *clouds: LabeledCloud) -> dict[str, Figure]:
        """Return the figures of clouds, by default of the sample, with interval and null."""
        clouds = clouds or self.clouds
        first = clouds[0]
        is_sampled = first.is_large and not self.is_of_pairs
        if is_sampled and first.sources is None:
            first.sources = random_sources(first.n_points, N_SOURCES, first.name, self.draw_seed)
        found = self.around.results(*clouds)
        known, compared = {name: figure.estimate for name, figure in found.items()}, clouds
        sampled: dict[str, float] = {}
        if is_sampled:
            compared = (self.around.part(first, 0),)
            known = evaluate(self.drawn, *compared)
            sampled = {name: float(figure) for name, figure in known.items()}
        tests: dict[str, PermutationTest] = {}
        for test in self.tests:
            tests |= test.tests(*compared, observed=known)
        return {
            name: figure._replace(test=tests.get(name), tested=sampled.get(name))
            for name, figure in found.items()
        }
