"""Intervals hold what clouds of the same size give on average, drift or no drift.

`python tests/metrics/wrappers/test_coverage.py 60 50` (repetitions, subsamples) prints the coverage
that `SubsampleInterval` states.
"""

import sys
from collections import defaultdict

import pytest
import torch

from saerepgeo.geometry.clouds import labeled
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import (
    AverageGeodesicDistance,
    ClusterCount,
    Evidence,
    MinimumSpanningTreeWeight,
    RelativeAEDP,
    SubsampleInterval,
    TwoNN,
    TwoNNWithin,
)

N_ITEMS, N_PROMPTS, N_PLACES, DIM = 5, 40, 6, 20


def metrics() -> list:
    makers = (AverageGeodesicDistance, TwoNN, TwoNNWithin, MinimumSpanningTreeWeight, RelativeAEDP)
    return [make() for make in makers]


def concept(seed: int) -> LabeledCloud:
    """Points of items, places and prompts, noise in all dimensions: the dimension drifts with n."""
    fixed = torch.Generator().manual_seed(1)
    items = 2 * torch.randn(N_ITEMS, DIM, generator=fixed)
    places = 2 * torch.randn(N_PLACES, DIM, generator=fixed)
    generator = torch.Generator().manual_seed(1000 + seed)
    prompts = torch.arange(N_PROMPTS).repeat_interleave(N_PLACES)
    where = torch.arange(N_PLACES).repeat(N_PROMPTS)
    labels = prompts % N_ITEMS
    own = torch.randn(N_PROMPTS, DIM, generator=generator)
    noise = torch.randn(len(prompts), DIM, generator=generator)
    x = items[labels] + places[where] + 0.5 * own[prompts] + 0.7 * noise
    named = torch.where(where >= 1, labels, -1)
    at_mention = torch.where(where == 1, labels, -1)
    return LabeledCloud(x, at_mention, named, prompts, where, concept=str(seed))


def coverage(repetitions: int, n_subsamples: int) -> dict[str, dict[str, float]]:
    """Return, by figure, how often 95 % intervals hold the mean over repetitions, and more."""
    values, intervals, smaller = defaultdict(list), defaultdict(list), defaultdict(list)
    around = SubsampleInterval(metrics(), n_subsamples)
    for seed in range(repetitions):
        cloud = concept(seed)
        draws = around.draws(cloud)
        for name, (figure, interval, *_) in around.results(cloud).items():
            values[name].append(float(figure))
            intervals[name].append((interval.low, interval.high))
            smaller[name].append(sum(float(draw[name]) for draw in draws) / len(draws))
    found = {}
    for name, own in values.items():
        truth = sum(own) / repetitions
        held = [low <= truth <= high for low, high in intervals[name]]
        about = [low <= v <= high for v, (low, high) in zip(own, intervals[name], strict=True)]
        drift = sum(smaller[name]) / repetitions / truth - 1
        found[name] = {
            "coverage": sum(held) / repetitions,
            "about its value": sum(about) / repetitions,
            "drift": drift,
        }
    return found


@pytest.mark.slow
def test_intervals_are_about_their_value_and_hold_what_they_promise() -> None:
    found = coverage(repetitions=24, n_subsamples=20)
    assert len(found) == 5
    for name, share in found.items():
        assert share["about its value"] == 1, name
        assert share["coverage"] >= 0.75, name
    drifts = [abs(share["drift"]) for share in found.values()]
    assert max(drifts) > 0.02, "without drift this test could not fail as the old interval did"


def test_a_large_cloud_keeps_its_values_and_is_tested_on_a_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evidence = Evidence([*metrics(), ClusterCount()], 4, 5, 9)
    evidence.around.max_subsample = 120
    plain = evidence.results(concept(0))
    monkeypatch.setattr(labeled, "MATRIX_POINTS", 100)
    cloud = concept(0)
    assert cloud.is_large
    assert [len(evidence.around.rows(cloud, draw)) for draw in range(4)] == [120] * 4
    large = evidence.results(cloud)
    for name, figure in large.items():
        assert float(figure.estimate) == pytest.approx(float(plain[name].estimate), rel=1e-9), name
        assert figure.estimate.n_used == plain[name].estimate.n_used
        assert figure.test is not None
        assert 0 < figure.test.p_value <= 1
    assert large["mstw"].tested != float(large["mstw"].estimate)
    count = large["cluster_count"].interval
    assert count is None or count.low != count.low, "a count of another size is no interval"


if __name__ == "__main__":
    for name, share in coverage(int(sys.argv[1]), int(sys.argv[2])).items():
        print(name, {key: round(value, 3) for key, value in share.items()})
