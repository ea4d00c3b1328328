"""What every metric class must do, checked in one call, with two real gloo processes.

def test_contract(process_pair):
    batches = [(recons_a, residuals_a), (recons_b, residuals_b)]
    check_metric(lambda: MeanSquaredError(), batches, process_pair)
"""

import importlib
import pickle
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, distributed
from torchmetrics import Metric

WORLD = 2
START_TIMEOUT_S = 300
TIMEOUT_S = 60
Update = tuple[Any, ...]


class ProcessPair:
    """Two processes in one gloo group that stay up for many checks, for a start costs seconds."""

    def __init__(self) -> None:
        self.workers: list[Any] = []
        self.pipes: list[Any] = []

    def start(self) -> None:
        context = mp.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory()
        for rank in range(WORLD):
            ours, theirs = context.Pipe()
            args = (rank, f"file://{Path(self.folder.name) / 'rendezvous'}", theirs)
            worker = context.Process(target=_serve, args=args, daemon=True)
            worker.start()
            self.workers.append(worker)
            self.pipes.append(ours)
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(START_TIMEOUT_S):  # imports on a busy machine are no hang of a metric
                self.stop()
                pytest.fail(f"rank {rank} did not start within {START_TIMEOUT_S} s")
            pipe.recv_bytes()

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.join()
        if self.workers:
            self.folder.cleanup()
        self.workers, self.pipes = [], []

    def compute(self, metric: Metric, shares: Sequence[Sequence[Update]]) -> list[Any]:
        """Update a copy of `metric` with `shares[rank]` on each rank; return each rank's result."""
        if not self.workers:
            self.start()
        for pipe, updates in zip(self.pipes, shares, strict=True):
            pipe.send_bytes(pickle.dumps((metric, updates)))
        results = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(TIMEOUT_S):
                self.stop()
                pytest.fail(f"rank {rank} hangs ({TIMEOUT_S} s), shares {_sizes(shares)}")
            is_error, result = pickle.loads(pipe.recv_bytes())
            if is_error:
                self.stop()
                pytest.fail(f"rank {rank}, shares {_sizes(shares)}:\n{result}")
            results.append(result)
        return results


def _serve(rank: int, rendezvous: str, pipe: Any) -> None:
    """Answer requests of `ProcessPair.compute` until the parent kills this process."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=WORLD)
    importlib.import_module("saerepgeo.metrics")
    pipe.send_bytes(b"ready")
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            return
        try:
            metric, updates = pickle.loads(request)
            for update in updates:
                metric.update(*update)
            answer = (False, metric.compute())
        except Exception:
            answer = (True, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))


@pytest.fixture(scope="session")
def process_pair() -> Iterator[ProcessPair]:
    """Two gloo processes, started at first use."""
    pair = ProcessPair()
    yield pair
    pair.stop()


def check_metric(
    make: Callable[[], Metric],
    updates: Sequence[Update],
    pair: ProcessPair | None = None,
    *,
    rtol: float = 1e-9,
    atol: float = 1e-12,
    low_precision_rtol: float | None = 0.05,
) -> None:
    """Check `make()` on `updates`: two or more tuples of arguments, points along dimension 0.

    Batched = whole, forward = update; clone, pickle, state dict, reset; `.to()` leaves the figure
    alone; bfloat16 input stays within `low_precision_rtol` (None: not checked); with `pair`, two
    processes = one, the shares even, uneven, and all on one rank.
    """
    assert len(updates) >= 2
    tolerance = {"rtol": rtol, "atol": atol}
    expected = _run(make(), updates)
    assert_same(_run(make(), [_concatenate(updates)]), expected, **tolerance)
    _check_copies(make, updates, expected)
    _check_forward(make, updates, expected, tolerance)
    _check_moves(make, updates, expected, tolerance, low_precision_rtol)
    if pair is not None:
        for shares in _shares(updates):
            for result in pair.compute(make(), shares):
                assert_same(result, expected, **tolerance)


def assert_same(actual: Any, expected: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Assert that two results of `compute` (tensor, number, tuple, dict) agree, NaN with NaN."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same(actual[key], expected[key], rtol, atol)
    elif isinstance(expected, tuple | list):
        assert len(actual) == len(expected)
        for left, right in zip(actual, expected, strict=True):
            assert_same(left, right, rtol, atol)
    elif isinstance(expected, Tensor | float):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
    else:
        assert actual == expected


def _run(metric: Metric, updates: Sequence[Update]) -> Any:
    for update in updates:
        metric.update(*update)
    return metric.compute()


def _check_copies(make: Callable[[], Metric], updates: Sequence[Update], expected: Any) -> None:
    metric = make()
    metric.update(*updates[0])
    first = metric.clone().compute()
    copies = [metric.clone(), pickle.loads(pickle.dumps(metric)), make()]
    metric.persistent(True)
    copies[2].persistent(True)
    copies[2].load_state_dict(metric.state_dict())
    copies[2]._update_count = 1  # torchmetrics does not store it, and warns where it is 0
    for copy in copies:
        assert_same(_run(copy, updates[1:]), expected)
    assert_same(metric.compute(), first)
    metric.reset()
    assert_same(_run(metric, updates), expected)


def _check_forward(
    make: Callable[[], Metric],
    updates: Sequence[Update],
    expected: Any,
    tolerance: dict[str, float],
) -> None:
    metric = make()
    for update in updates:
        assert_same(metric(*update), _run(make(), [update]), **tolerance)
    assert_same(metric.compute(), expected, **tolerance)


def _check_moves(
    make: Callable[[], Metric],
    updates: Sequence[Update],
    expected: Any,
    tolerance: dict[str, float],
    low_precision_rtol: float | None,
) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        metric = make()
        metric.update(*updates[0])
        assert_same(_run(metric.to(dtype), updates[1:]), expected, **tolerance)
    if torch.cuda.is_available():
        on_gpu = [_map(lambda x: x.cuda(), update) for update in updates]
        result = _run(make().cuda(), on_gpu)
        assert_same(_map(lambda x: x.cpu(), result), expected, rtol=1e-5, atol=1e-8)
    if low_precision_rtol is not None:
        rounded = [_map(_to_bfloat16, update) for update in updates]
        assert_same(_run(make(), rounded), expected, rtol=low_precision_rtol, atol=1e-2)


def _shares(updates: Sequence[Update]) -> list[list[list[Update]]]:
    """Even, uneven (in number of updates and of points), one rank without a single point."""
    whole = _concatenate(updates)
    n_points = _n_points(whole)
    one = n_points // 7 + 1
    return [
        [list(updates[::2]), list(updates[1::2])],
        [[_slice(whole, 0, one)], [_slice(whole, one, one + 1), _slice(whole, one + 1, n_points)]],
        [[], list(updates)],
        [list(updates), []],
    ]


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        mapped = [_map(function, item) for item in value]
        return type(value)(*mapped) if hasattr(value, "_fields") else tuple(mapped)
    if isinstance(value, dict):
        return {key: _map(function, item) for key, item in value.items()}
    return value


def _to_bfloat16(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16) if x.is_floating_point() else x


def _slice(update: Update, start: int, stop: int) -> Update:
    return _map(lambda x: x[start:stop], update)


def _concatenate(updates: Sequence[Any]) -> Any:
    first = updates[0]
    if isinstance(first, Tensor):
        return torch.cat(list(updates))
    if isinstance(first, tuple):
        joined = [_concatenate(column) for column in zip(*updates, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    return first


def _n_points(value: Any) -> int:
    while isinstance(value, tuple):
        value = value[0]
    return len(value) if value.ndim else 1


def _sizes(shares: Sequence[Sequence[Update]]) -> list[int]:
    return [sum(_n_points(update) for update in updates) for updates in shares]
