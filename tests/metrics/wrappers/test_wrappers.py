"""Wrappers around any metric: copies, metrics of one's own, what is refused, threads."""

import pickle

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanMetric, SumMetric

from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import (
    CloudMetric,
    Evidence,
    FisherRatio,
    LinearCKA,
    MinimumSpanningTreeWeight,
    NullTest,
    PermutedItems,
    RandomDictionaries,
    RandomPairing,
    SubsampleInterval,
    TensorRanks,
    TwoNN,
)
from saerepgeo.types import Estimate, SparseLatents, generator_for
from tests.metrics.harness import assert_same

WRAPPERS = {
    "interval": lambda metrics: SubsampleInterval(metrics, 4),
    "null": lambda metrics: NullTest(metrics, n_draws=5),
    "evidence": lambda metrics: Evidence(metrics, 4, 5, 5),
}


class Spread(CloudMetric):
    """Mean distance from the centroid."""

    def of(self, cloud: LabeledCloud) -> Estimate:
        x = cloud.coordinates()
        return Estimate((x - x.mean(0)).norm(dim=1).mean(), cloud.n_points, 0)


def radii_of(x: Tensor) -> Tensor:
    return (x - x.mean(0)).norm(dim=1)


class Extent(CloudMetric):
    """Several figures under names of their own."""

    alternative = "greater"

    def figures(self, cloud: LabeledCloud) -> dict[str, Estimate]:
        radii, n = radii_of(cloud.coordinates()), cloud.n_points
        return {"least": Estimate(radii.min(), n, 0), "largest": Estimate(radii.max(), n, 0)}


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS)
def test_metrics_of_ones_own_and_copies(make) -> None:
    points = normal(60, 3) + 2
    metric = make([Spread(), MeanMetric(), TwoNN()])
    metric.update(points)
    found = metric.compute()
    assert float(found["mean_metric"]) == pytest.approx(float(points.mean()), rel=1e-5)
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        copy._computed = None
        assert_same(copy.compute(), found)


@pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS)
def test_figures_may_have_any_names(make) -> None:
    points, prompts = normal(60, 3), torch.arange(60) // 3
    metric = make([Extent(), TensorRanks(("eps",)), TwoNN()])
    metric.update(points, prompts=prompts, positions=torch.arange(60) % 3)
    found = metric.compute()
    assert float(found["largest"]) == pytest.approx(float(radii_of(points).max()), rel=1e-5)
    assert {"least", "n_active", "rank/feature/eps", "two_nn"} <= found.keys()
    assert metric.metric_of("least").alternative == "greater"


@pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS)
def test_no_points_and_one_prompt_are_undefined(make) -> None:
    metric = make([TwoNN()])
    metric.update(torch.zeros(0, 3))
    assert metric.compute()["two_nn"].isnan()
    metric.reset()
    metric.update(normal(40, 3), prompts=torch.zeros(40, dtype=torch.long))
    assert not metric.compute()["two_nn"].isnan()


def test_names_twice_and_kinds_mixed_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Evidence([TwoNN(), TwoNN()])
    with pytest.raises(ValueError, match="got both"):
        Evidence([TwoNN(), LinearCKA()])


def test_gaussian_draws_have_coordinates() -> None:
    metric = NullTest(MinimumSpanningTreeWeight("points"), n_draws=9)
    metric.update(normal(60, 3))
    found = metric.compute()
    assert float(found["mstw/null"]) == pytest.approx(float(found["mstw"]), rel=0.2)


def test_one_draw_serves_all_metrics() -> None:
    made: list[int] = []

    def latents(number: int) -> LabeledCloud:
        made.append(number)
        return LabeledCloud(torch.randn(40, 3, generator=generator_for(0, "latents", number)))

    metric = NullTest([TwoNN(), Spread()], RandomDictionaries(latents), 7)
    metric.update(5 * normal(40, 3))
    assert float(metric.compute()["spread/p"]) == pytest.approx(2 / 8)
    assert sorted(made) == list(range(7))


def test_threads_make_no_difference() -> None:
    before, found = torch.get_num_threads(), []
    x, labels = normal(60, 3), torch.arange(60) % 2
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            metric = NullTest(FisherRatio(), PermutedItems(), 20)
            metric.update(x + labels[:, None], labels=labels)
            found.append(metric.compute())
    finally:
        torch.set_num_threads(before)
    assert_same(found[1], found[0])


def test_plain_metrics_are_not_summed_over_processes(process_pair) -> None:
    points = normal(40, 3)
    (whole, again) = process_pair.compute(
        SubsampleInterval(SumMetric(), 2), [[(points[:15],)], [(points[15:],)]]
    )
    assert float(whole["sum_metric"]) == pytest.approx(float(points.sum()), rel=1e-4)
    assert_same(again, whole)


def test_the_defaults_are_those_of_the_docstring() -> None:
    metric, n = SubsampleInterval(TwoNN()), 4096
    cloud = LabeledCloud(torch.zeros(n, 1))
    assert len(metric.rows(cloud, 0)) == 1024
    assert len(metric.draws(LabeledCloud(normal(20, 2)))) == 100
    evidence = Evidence([TwoNN()])
    assert evidence.around.n_draws == 100
    assert [test.n_draws for test in evidence.tests] == [199]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SubsampleInterval(TwoNN(), n_draws=-1),
        lambda: SubsampleInterval(TwoNN(), share=1.0),
        lambda: SubsampleInterval(TwoNN(), share=0.0),
        lambda: SubsampleInterval(TwoNN(), level=1.0),
        lambda: NullTest(TwoNN(), n_draws=-1),
    ],
)
def test_bad_arguments_are_refused(make) -> None:
    with pytest.raises(ValueError, match="`n_draws`"):
        make()


@pytest.mark.parametrize("of_named", [False, True])
def test_items_are_dealt_to_prompts_and_to_what_has_one(of_named: bool) -> None:
    prompts = torch.arange(30) // 3
    labels = torch.where(torch.arange(30) % 3 == 0, -1, prompts % 4)
    cloud = LabeledCloud(normal(30, 2), labels=labels, prompts=prompts)
    drawing = PermutedItems(of_named=of_named).drawing(cloud, 0)
    dealt = [drawing(k).named if of_named else drawing(k).labels for k in range(3)]
    for items in dealt:
        assert torch.equal(items == -1, labels == -1)
        assert torch.equal(items.sort().values, labels.sort().values)
        assert torch.equal(items[1::3], items[2::3])
    assert not torch.equal(dealt[0], dealt[1])


def test_a_null_stops_where_it_is_decided_and_its_draws_are_the_first_of_all() -> None:
    from saerepgeo.geometry.sequential_nulls import n_needed, sequential_test

    labels = torch.arange(60) % 3
    made: list[int] = []

    class Counted(FisherRatio):
        stem = "counted"

        def of(self, cloud: LabeledCloud) -> Estimate:
            made.append(1)
            return super().of(cloud)

    x = normal(60, 4)
    for gap, stops in ((0.0, True), (5.0, False)):
        cloud = LabeledCloud(x + gap * labels[:, None], labels)
        every = PermutedItems().values([FisherRatio()], [cloud], 99, 0)["fisher_ratio"]
        made.clear()
        test = NullTest([Counted()], PermutedItems(), 99, n_extreme=5).results(cloud)["counted"]
        expected = sequential_test(float(test.estimate), every, "greater", 5)
        assert test.test == expected
        assert (n_needed(float(test.estimate), every, "greater", 5) is not None) == stops
        assert (len(made) < 60) == stops
    n_draws = []
    for seed in range(1, 7):
        pairs = LabeledCloud(x), LabeledCloud(normal(60, 3, seed))
        every = RandomPairing().values([LinearCKA()], pairs, 99, 0)["cka"]
        found = NullTest([LinearCKA()], None, 99, n_extreme=3).results(*pairs)["cka"]
        assert found.test == sequential_test(float(found.estimate), every, "greater", 3)
        n_draws.append(found.test.n_draws)
    assert min(n_draws) <= 6 < max(n_draws), "some are decided by the first draws, some by later"
    with pytest.raises(ValueError, match="`n_extreme` must be ≥ 0"):
        NullTest([LinearCKA()], None, 9, n_extreme=-1)


def test_spectral_ranks_are_those_of_the_metrics_of_their_names() -> None:
    from saerepgeo import metrics

    x = normal(40, 3) @ normal(3, 9, 1) + 7
    metric = metrics.SpectralRanks()
    metric.update(x)
    found = metric.compute()
    for name in ("EffectiveRank", "StableRank", "ParticipationRatio"):
        other = getattr(metrics, name)(center=True)
        other.update(x)
        key = "".join("_" + c.lower() if c.isupper() else c for c in name)[1:]
        assert found[key].item() == pytest.approx(other.compute().item(), rel=1e-6)
    assert found["rank"].item() == 3
    sparse = LabeledCloud(SparseLatents.from_dense(x), is_turned=False)
    flat = metrics.SpectralRanks().figures(sparse)
    assert float(flat["stable_rank"]) == pytest.approx(found["stable_rank"].item(), rel=1e-6)
    equal = metrics.SpectralRanks()
    equal.update(torch.full((9, 4), 3.3))
    assert equal.compute()["rank"].item() == 0
    assert equal.reason is not None
    _ = Evidence([metrics.SpectralRanks(), FisherRatio()], 2, 3, 3).results(
        LabeledCloud(x, torch.arange(40) % 4)
    )
