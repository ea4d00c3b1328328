"""Alignment metrics against the functions they call, over batches, processes and bad input."""

import jaxtyping
import pytest
import torch

from saerepgeo.geometry import debiased_cka, procrustes_disparity
from saerepgeo.metrics import LinearCKA, ProcrustesDisparity, UnmatchedMass
from tests.metrics.harness import check_metric

N_CLASSES = 6


@pytest.fixture
def unchecked():
    """Switch the shape checks of the tests off, so that bad input meets the package's own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _sample(n=48):
    generator = torch.Generator().manual_seed(0)
    first = 2 + torch.randn(n, 5, generator=generator)
    second = first @ torch.randn(5, 9, generator=generator) + torch.randn(n, 9, generator=generator)
    return first, second, torch.arange(n) % (N_CLASSES + 1) - 1


def _batches(*columns):
    return list(zip(*(column.split((9, 15, 24)) for column in columns), strict=True))


def test_contract_of_cka(process_pair):
    first, second, _ = _sample()
    check_metric(LinearCKA, _batches(first, second), process_pair)


@pytest.mark.parametrize("pairing", ["items", "matched_clusters", "cluster_numbers"])
def test_contract_of_procrustes(pairing, process_pair):
    tolerance = 0.05 if pairing == "items" else None  # rounded points are other clusters
    check_metric(
        lambda: ProcrustesDisparity(pairing, 5),
        _batches(*_sample()),
        process_pair,
        low_precision_rtol=tolerance,
    )


def test_contract_of_unmatched_mass(process_pair):
    first, second, _ = _sample()
    batches = _batches(first, second)
    check_metric(lambda: UnmatchedMass(5), batches, process_pair, low_precision_rtol=None)


def test_equal_the_functions():
    first, second, labels = _sample()
    cka, disparity = LinearCKA(), ProcrustesDisparity()
    for x, y, own in _batches(first, second, labels):
        cka.update(x, y)
        disparity.update(x, y, own)
    assert cka.compute().item() == pytest.approx(float(debiased_cka(first, second)), rel=1e-10)
    means = [
        torch.stack([side[labels == k].double().mean(0) for k in range(N_CLASSES)])
        for side in (first, second)
    ]
    expected = float(procrustes_disparity(*means))
    assert disparity.compute().item() == pytest.approx(expected, rel=1e-10)


def test_cka_of_a_bounded_sample():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4000, 5, generator=generator)
    second = first + torch.randn(4000, 5, generator=generator)
    metric = LinearCKA(max_points=800)
    for x, y in zip(first.split(1000), second.split(1000), strict=True):
        metric.update(x, y)
    estimate = metric.estimate()
    assert (estimate.n_used, estimate.n_dropped) == (800, 3200)
    assert float(estimate) == pytest.approx(float(debiased_cka(first, second)), abs=0.05)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_undefined_figures_say_why():
    cka, disparity = LinearCKA(), ProcrustesDisparity()
    for metric in (cka, disparity):
        assert metric.compute().isnan()
        assert metric.reason == "no points"
        metric.reset()
    cka.update(torch.randn(3, 2), torch.randn(3, 2))
    assert cka.compute().isnan()
    assert "4 or more" in cka.reason
    cka.update(torch.randn(9, 2), torch.randn(9, 2))
    assert not cka.compute().isnan()
    assert cka.reason is None
    constant = LinearCKA()
    constant.update(torch.randn(9, 2), torch.full((9, 2), 0.1))
    assert constant.compute().isnan()
    assert "equal" in constant.reason
    disparity.update(torch.randn(4, 2), torch.randn(4, 3), torch.tensor([2, 2, 2, -1]))
    assert disparity.compute().isnan()
    assert "2 or more" in disparity.reason
    assert (disparity.estimate().n_used, disparity.estimate().n_dropped) == (1, 0)
    disparity.update(torch.randn(4, 2), torch.ones(4, 3), torch.arange(4))
    assert not disparity.compute().isnan()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.ones(4, 2, dtype=torch.int64), torch.ones(4, 3), "floating point"),
        (torch.ones(4, 2), torch.full((4, 3), float("inf")), "finite"),
        (torch.ones(4, 2), torch.ones(5, 3), "paired rows|got shapes"),
        (torch.ones(4, 3), torch.ones(4, 2), "columns"),
        (torch.ones(4, 2), torch.ones(4, 2), "columns"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refuses(first, second, message):
    labels = torch.arange(4)
    cka, disparity = LinearCKA(), ProcrustesDisparity()
    cka.update(torch.randn(4, 2), torch.randn(4, 3))
    disparity.update(torch.randn(4, 2), torch.randn(4, 3), labels)
    with pytest.raises(ValueError, match=message):
        cka.update(first, second)
    with pytest.raises(ValueError, match=message):
        disparity.update(first, second, labels)


def test_plot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    first, second, labels = _sample()
    for metric, batch in [
        (LinearCKA(), (first, second)),
        (ProcrustesDisparity(), (first, second, labels)),
    ]:
        metric.update(*batch)
        figure, axes = metric.plot()
        assert axes.has_data()
        plt.close(figure)
