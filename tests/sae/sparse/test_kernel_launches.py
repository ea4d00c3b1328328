"""Kernels are launched on the device of their tensors, whichever is the current one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


class Launches:
    """Stands for a kernel; notes the device that was current at each launch."""

    def __init__(self) -> None:
        self.current, self.seen = torch.device("cpu"), list[torch.device]()

    @contextmanager
    def device_of(self, tensor: torch.Tensor) -> Iterator[None]:
        before, self.current = self.current, tensor.device
        yield
        self.current = before

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *_: self.seen.append(self.current)


def test_kernels_are_launched_where_their_tensors_are(emulated, monkeypatch):
    kernels = pytest.importorskip("saerepgeo.sae.sparse.kernels", reason="needs Triton")
    launches = Launches()
    monkeypatch.setattr("torch.cuda.device_of", launches.device_of)
    for name in ("_bag_sum_kernel", "_bag_dots_kernel"):
        monkeypatch.setattr(kernels, name, launches)
    rows, columns = torch.ones(3, 4, device=emulated), torch.tensor([0, 2, 1], device=emulated)
    offsets = torch.tensor([0, 2, 3], device=emulated)
    kernels.bag_sum(torch.ones(3, device=emulated), columns, offsets, rows)
    kernels.bag_dots(rows[:2], columns, offsets, rows)
    assert launches.seen == [emulated, emulated]
