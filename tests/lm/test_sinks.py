"""Which norm is an attention sink's: planted ones, bulks without, whatever their tails."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from saerepgeo.lm.sinks import sink_norm

N = 16128


def lognormal(generator: torch.Generator, spread: float = 0.2) -> Tensor:
    return (spread * torch.randn(N, generator=generator)).exp()


def uniform(generator: torch.Generator) -> Tensor:
    return torch.rand(N, generator=generator).clamp(min=1e-6)


def with_sinks(times: float, seed: int, share: float = 0.0005) -> tuple[Tensor, Tensor]:
    """Return norms of median near 1, and which of them are planted `times` higher."""
    generator = torch.Generator().manual_seed(seed)
    norms, n_sinks = lognormal(generator), round(share * N)
    norms[:n_sinks] = times * (1 + 0.02 * uniform(generator)[:n_sinks])
    return norms, torch.arange(N) < n_sinks


@pytest.mark.parametrize("share", [0.0005, 0.02])
@pytest.mark.parametrize("times", [5, 9, 30, 100])
def test_planted_sinks_are_all_out_and_nothing_else(times: float, share: float) -> None:
    for seed in range(5):
        norms, planted = with_sinks(times, seed, share)
        assert ((norms > sink_norm(norms)) == planted).all()
        assert ((1e6 * norms > sink_norm(1e6 * norms)) == planted).all()


def test_sinks_of_many_sizes_are_all_out() -> None:
    norms, planted = with_sinks(5, 0)
    norms[:8] = torch.tensor([3.9, 5.0, 7.5, 9.1, 9.6, 17.0, 48.0, 147.0])
    assert ((norms > sink_norm(norms)) == planted).all()


@pytest.mark.parametrize(
    "bulk",
    [
        lambda g: lognormal(g, 0.01),
        lambda g: lognormal(g, 0.3),
        lambda g: lognormal(g, 1.0),
        lambda g: uniform(g) ** (-1 / 3),  # Pareto, of infinite third moment
        lambda g: 1 / uniform(g),  # of infinite mean
        lambda g: 1 + (torch.randn(N, generator=g) / uniform(g)).abs(),
    ],
    ids=["narrow", "lognormal", "wide", "pareto 3", "pareto 1", "slash"],
)
def test_no_bulk_has_sinks_whatever_its_tail(bulk: Callable[[torch.Generator], Tensor]) -> None:
    for seed in range(5):
        norms = bulk(torch.Generator().manual_seed(seed))
        assert (norms <= sink_norm(norms)).all()
        others = bulk(torch.Generator().manual_seed(100 + seed))
        assert (others <= sink_norm(norms)).all(), "the limit of one sample holds for another"


def test_the_verdict_is_that_of_one_sample_for_any_other() -> None:
    limit = sink_norm(with_sinks(30, 0)[0])
    for times in (9, 30, 100):
        norms, planted = with_sinks(times, 7)
        assert ((norms > limit) == planted).all()


def test_norms_without_spread_and_too_few() -> None:
    assert sink_norm(torch.ones(1000)) == pytest.approx(1.5)
    norms = torch.ones(1000)
    norms[3] = 40.0
    assert 1 < sink_norm(norms) < 40
    assert sink_norm(torch.ones(19)) == sink_norm(torch.zeros(1000)) == math.inf
