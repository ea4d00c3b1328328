"""The stream is a pure function of (seed, step): devices, workers and restarts change nothing."""

from itertools import islice, pairwise
from typing import Any

import pytest
import torch

from saerepgeo.data.concepts import draw_balanced
from saerepgeo.data.contexts import StoredContexts
from saerepgeo.data.stream import ActivationStream, CallTokens, StreamPlan
from saerepgeo.types import ActivationBatch


def plan(**changes: Any) -> StreamPlan:
    settings = {
        "batch_size": 32,
        "n_concept": 8,
        "window_steps": 3,
        "context_size": 5,
        "lm_batch_size": 2,
        "n_lanes": 4,
        "rank": 0,
        "world_size": 1,
        "seed": 0,
    }
    return StreamPlan(**(settings | changes))


@pytest.fixture
def contexts() -> StoredContexts:
    """A text whose token n is the number n, so that every point tells where it came from."""
    return StoredContexts(torch.arange(1, 2001).int(), bos_id=0, context_size=5)


def points_of(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"hook": tokens[:, 1:].flatten()[:, None].float()}


def labeled() -> dict[str, ActivationBatch]:
    residuals, ids = -torch.arange(1.0, 13.0)[:, None], torch.arange(12)
    return {"hook": ActivationBatch(residuals, ids % 3, torch.zeros_like(ids))}


def stream(contexts: StoredContexts, first_step: int = 0, n_workers: int = 0, **changes: Any):
    return ActivationStream(plan(**changes), points_of, contexts, labeled(), first_step, n_workers)


def take(source: ActivationStream, n: int) -> list[ActivationBatch]:
    return [by_hook["hook"] for by_hook in islice(source, n)]


def test_a_batch_has_the_configured_mixture(contexts):
    for batch in take(stream(contexts), 4):
        assert batch.residuals.shape == (32, 1)
        is_concept = batch.labels >= 0
        assert is_concept.sum() == 8
        assert (batch.residuals[is_concept] < 0).all()
        assert (batch.residuals[~is_concept] > 0).all()
        assert (batch.concepts[~is_concept] == -1).all()


def test_an_epoch_has_every_token_once_and_the_next_another_order(contexts):
    width, per_window = 24, 3 * 24
    n_windows = -(-2000 // 96)  # contexts per lane and window: 18 points / 4 → 5; 4 lanes
    batches = take(stream(contexts), n_windows * 3)
    background = torch.cat([b.residuals[8:, 0] for b in batches])
    assert len(background) == n_windows * per_window
    assert width == 24
    assert len(background.unique()) == len(background[: len(background)].unique())
    numbers = [n for w in range(25) for c in plan().calls(w) for n in plan().context_numbers(c)]
    assert numbers == list(range(25 * 20))  # no context is left out or read twice
    calls = CallTokens(contexts, plan())
    first = torch.cat([calls[c] for w in range(25) for c in plan().calls(w)])
    assert first[:, 1:].flatten().sort().values.equal(torch.arange(1, 2001))
    second = torch.cat([calls[c] for w in range(25, 50) for c in plan().calls(w)])
    assert second[:, 1:].flatten().sort().values.equal(torch.arange(1, 2001))
    assert not first.equal(second)


def test_a_window_that_needs_every_point_of_its_contexts_uses_each_once(contexts):
    batches = take(stream(contexts, n_concept=0), 3)  # 8 points a lane and step: 6 contexts of 4
    numbers = torch.cat([batch.residuals for batch in batches])
    assert len(numbers) == len(numbers.unique()) == 96


def test_every_step_draws_its_own_concept_points(contexts):
    drawn = [batch.residuals[:8, 0].tolist() for batch in take(stream(contexts), 12)]
    assert all(a != b for a, b in pairwise(drawn))


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_global_batch_without_overlap(contexts, world_size):
    whole = take(stream(contexts), 7)
    parts = [take(stream(contexts, rank=r, world_size=world_size), 7) for r in range(world_size)]
    for step in range(7):
        together = torch.cat([part[step].residuals for part in parts]).sort(0).values
        assert together.equal(whole[step].residuals.sort(0).values)
        sizes = {len(part[step].labels) for part in parts}
        assert sizes == {32 // world_size}


def test_resumed_equals_uninterrupted_at_every_step(contexts):
    whole = take(stream(contexts), 10)
    for start in range(1, 9):
        for got, expected in zip(take(stream(contexts, start), 2), whole[start:], strict=False):
            assert all(a.equal(b) for a, b in zip(got, expected, strict=True))


def test_workers_change_nothing(contexts):
    whole = take(stream(contexts), 7)
    for got, expected in zip(take(stream(contexts, n_workers=2), 7), whole, strict=True):
        assert all(a.equal(b) for a, b in zip(got, expected, strict=True))


def test_seeds_differ_and_windows_are_shuffled(contexts):
    a, b = take(stream(contexts), 1)[0], take(stream(contexts, seed=1), 1)[0]
    assert not a.residuals.equal(b.residuals)
    background = a.residuals[8:14, 0]  # the first lane's points of step 0
    assert (background.diff() != 1).any()


def test_the_next_window_is_filled_while_this_one_is_used(contexts):
    source = stream(contexts)
    done, counts = iter(source), []
    for _ in range(6):
        next(done)
        counts.append(source.n_tokens)
    per_window = 4 * 5 * 5
    assert counts[0] == per_window
    assert counts[1] - counts[0] < per_window  # piecewise, not at once
    assert counts[3] == 2 * per_window


def test_concept_points_are_balanced_over_items():
    labels = torch.tensor([0] * 20 + [1] * 2 + [5] * 7)
    rows = draw_balanced(labels, 30, torch.Generator().manual_seed(0))
    assert torch.bincount(labels[rows])[[0, 1, 5]].tolist() == [10, 10, 10]
    assert len(rows[labels[rows] == 0].unique()) == 10  # none twice while others wait
    assert rows[labels[rows] == 1].unique(return_counts=True)[1].tolist() == [5, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_size": 3}, "number of devices must divide `n_lanes` = 4, got 3"),
        ({"batch_size": 30}, "`batch_size` must be a multiple"),
        ({"n_concept": 3}, "`n_concept` must be a multiple"),
        ({"n_concept": 64}, "at most `batch_size`"),
    ],
)
def test_sizes_that_do_not_divide_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_concept_only_batches_need_no_text():
    source = ActivationStream(plan(n_concept=32), points_of, None, labeled())
    batches = take(source, 5)  # beyond the first window
    assert all((batch.residuals < 0).all() for batch in batches)
    assert source.n_tokens == 0


def test_no_concept_points_is_an_error(contexts):
    none = ActivationBatch(torch.zeros(0, 1), *torch.zeros(2, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="needs concept points"):
        ActivationStream(plan(), points_of, contexts, {"hook": none})


def test_a_stream_starts_at_its_first_step(contexts):
    begun = ActivationStream(plan(), points_of, contexts, labeled())
    for mine, theirs in zip(take(begun, 2), take(stream(contexts, 0), 2), strict=True):
        assert torch.equal(mine.residuals, theirs.residuals)


def test_each_hook_of_a_pass_has_the_batches_it_has_alone(contexts, monkeypatch):
    """Though another hook leaves out other positions, and is done with after other contexts."""
    monkeypatch.setattr("saerepgeo.data.statistics.FEWEST_CONTEXTS", 1)

    def points(tokens: torch.Tensor, hook: str) -> torch.Tensor:
        found = points_of(tokens)["hook"]
        return -found[found[:, 0] % 5 > 0] if hook == "second" else found

    def source(*hooks: str) -> ActivationStream:
        few = {hook: labeled()["hook"] for hook in hooks}
        return ActivationStream(plan(), lambda x: {h: points(x, h) for h in hooks}, contexts, few)

    both = list(islice(source("first", "second"), 7))
    statistics = source("first", "second").statistics()
    for hook in ("first", "second"):
        alone = [batch[hook] for batch in islice(source(hook), 7)]
        for got, expected in zip(both, alone, strict=True):
            assert all(a.equal(b) for a, b in zip(got[hook], expected, strict=True))
        (own,) = source(hook).statistics().values()
        assert statistics[hook].mean.equal(own.mean)
        assert statistics[hook][1:] == own[1:]
    assert statistics["first"].n_contexts != statistics["second"].n_contexts
