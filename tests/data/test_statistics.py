"""Moments of residuals: how many contexts are enough."""

import torch

from saerepgeo.data.statistics import FEWEST_CONTEXTS, residual_statistics

GENERATOR = torch.Generator()


def parts(n: int, spread: float):
    """Pairs of contexts, alike but for `spread` of their variance."""
    for number in range(n):
        x = torch.randn(2, 500, 4, generator=GENERATOR.manual_seed(number))
        scale = 1 + spread * torch.randn(2, 1, 1, generator=GENERATOR)
        yield {"hook": (x * scale).flatten(0, 1)}, 2


def test_two_contexts_that_happen_to_agree_are_not_enough():
    found = residual_statistics(parts(50, 0.0))["hook"]
    assert found.n_contexts == FEWEST_CONTEXTS


def test_contexts_that_differ_are_read_until_the_error_is_small():
    found = residual_statistics(parts(2000, 0.2))["hook"]
    assert FEWEST_CONTEXTS < found.n_contexts < 4000
    assert 0.015 < found.standard_error / float(found.variance) <= 0.02


def test_a_text_of_fewer_contexts_is_read_whole():
    found = residual_statistics(parts(3, 0.0))["hook"]
    assert (found.n_contexts, found.is_sure) == (6, False)
