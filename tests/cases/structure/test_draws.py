"""Draws on several threads: the same results in the same order, and an end when asked."""

import pytest
import torch

from saerepgeo.cases.structure.draws import in_parallel
from saerepgeo.types import generator_for


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def draw(number: int) -> float:
    return float(torch.randn(50, 50, generator=generator_for(0, "draw", number)).det())


def test_threads_change_neither_results_nor_order(threads):
    threads(1)
    alone = in_parallel(draw, range(20))
    threads(3)
    reports: list[None] = []
    assert in_parallel(draw, range(20), lambda: reports.append(None)) == alone
    assert len(reports) == 20
    assert torch.get_num_threads() == 3


def test_threads_keep_no_gradients(threads):
    threads(2)
    weight = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        made = in_parallel(lambda x: weight * x, [1.0, 2.0])
    assert not any(part.requires_grad for part in made)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_what_a_report_raises_ends_the_draws(threads, n_threads):
    threads(n_threads)
    begun: list[int] = []

    def count(number: int) -> int:
        begun.append(number)
        return number

    def stop() -> None:
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        in_parallel(count, range(5000), stop)
    assert len(begun) < 5000
    assert torch.get_num_threads() == n_threads
