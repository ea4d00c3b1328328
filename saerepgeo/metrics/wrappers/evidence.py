"""Every figure with what it takes to believe it: its interval and its null."""

from typing import Any, NamedTuple

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import PermutationTest
from saerepgeo.metrics.cloud_metric import evaluate
from saerepgeo.metrics.wrappers.null_tests import NullTest
from saerepgeo.metrics.wrappers.nulls import GaussianNull, PermutedItems
from saerepgeo.metrics.wrappers.subsamples import SubsampleInterval, random_sources
from saerepgeo.metrics.wrappers.wrapped import CloudWrapper, Metrics
from saerepgeo.types import Estimate, Interval

N_SOURCES = 512
"""Points whose paths stand for all in the AGD of a large cloud."""


class Figure(NamedTuple):
    """A number with what it takes to believe it."""

    estimate: Estimate
    interval: Interval | None = None
    test: PermutationTest | None = None
    tested: float | None = None
    """The figure of the points that the null imitates, where these are not all."""


class Evidence(CloudWrapper):
    """Metrics with interval and null: `SubsampleInterval` and, by each metric's null, `NullTest`.

    Metrics are tested against one Gaussian cloud of the same covariance, or items dealt out to
    prompts at random, as they say; metrics of pairs against a random pairing. Values are of all
    points, however many; of more than `MATRIX_POINTS` points, nulls stand beside the figures of one
    subsample.

    `compute()` gives `{name}`, `{name}/low`, `{name}/high`, `{name}/null` and `{name}/p`.

    Args:
        metrics: of one cloud, or of pairs.
        n_subsamples: subsamples behind an interval; 0: no intervals.
        n_nulls: draws of the nulls that are slow: Gaussian clouds, dimension within items.
        n_permutations: draws of the nulls that are fast.
        seed: of all draws.

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
        **kwargs: Any,
    ) -> None:
        super().__init__(metrics, **kwargs)
        own = list(self.metrics.values())
        self.around, self.draw_seed = SubsampleInterval(own, n_subsamples, seed=seed), seed
        if self.is_of_pairs:
            self.tests = [NullTest(own, None, n_permutations, seed)]
            return
        items = [metric for metric in own if metric.null == "items"]
        groups = (
            ([m for m in own if m.null == "gaussian"], GaussianNull(), n_nulls),
            ([m for m in items if m.reads_named], PermutedItems(of_named=True), n_nulls),
            ([m for m in items if not m.reads_named], PermutedItems(), n_permutations),
        )
        self.tests = [NullTest(chosen, null, n, seed) for chosen, null, n in groups if chosen]

    def results(self, *given: LabeledCloud) -> dict[str, Figure]:
        """Return the figures of clouds, by default of the sample, with interval and null."""
        clouds = given or self.clouds
        first = clouds[0]
        is_sampled = first.is_large and not self.is_of_pairs
        if is_sampled and first.sources is None:
            first.sources = random_sources(first.n_points, N_SOURCES, first.name, self.draw_seed)
        whole = self.around.intervals(*clouds)
        tested, compared = {name: figure for name, (figure, _) in whole.items()}, clouds
        if is_sampled:
            compared = (self.around.part(first, 0),)
            tested = evaluate(self.drawn, *compared)
        tests: dict[str, PermutationTest] = {}
        for test in self.tests:
            known = {name: e for name, e in tested.items() if name.split("/")[0] in test.metrics}
            tests |= test.tests(*compared, observed=known)
        return {
            name: Figure(
                figure,
                interval,
                tests.get(name),
                float(tested[name]) if is_sampled and name in tested else None,
            )
            for name, (figure, interval) in whole.items()
        }

    def _figures_of_sample(self) -> dict[str, Estimate]:
        found = {}
        for name, (figure, interval, test, _) in self.results().items():
            found[name] = figure
            if interval is not None:
                found[f"{name}/low"] = figure.with_value(interval.low)
                found[f"{name}/high"] = figure.with_value(interval.high)
            if test is not None:
                found[f"{name}/null"] = figure.with_value(test.null_mean)
                found[f"{name}/p"] = figure.with_value(test.p_value)
        return found
