"""What work on the emulated device would cost a CUDA device: operations and synchronizations.

    with counted() as counts:
        module(batch)
    counts.n_operations, counts.n_waits, counts.largest

A synchronization is where the host waits for the device: it reads a number of it, or the shape of a
result depends on what the device found. Which operations wait is written down here from what
torch's CUDA kernels do; `torch.cuda.set_sync_debug_mode` is the judge where there is such a device.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from emulated_device import INDEXES, NAME, listeners
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {
    **dict.fromkeys(("_local_scalar_dense", "nonzero", "masked_select", "equal"), 1),
    **dict.fromkeys(("_unique", "_unique2", "unique_dim", "unique_consecutive"), 1),
    "bincount": 2,  # asks for the least and the largest
}
"""How often an operation waits."""
COPIES = {"copy_", "_copy_from", "_to_copy"}


@dataclass
class Counts:
    """What was asked of the device."""

    n_operations: int = 0
    """Views and host arithmetic left out: what would launch a kernel or copy."""
    waits: Counter[str] = field(default_factory=Counter)
    """Synchronizations by the operation that waits."""
    names: Counter[str] = field(default_factory=Counter)
    """Operations by name."""
    largest: int = 0
    """Entries of the largest result."""

    @property
    def n_waits(self) -> int:
        """Number of synchronizations."""
        return self.waits.total()


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def hear(self, non_blocking: bool) -> None:
        """Count a copy to the device that no dispatch shows."""
        self.counts.n_operations += 1
        self.counts.names["made of host values"] += 1
        if not non_blocking:
            self.counts.waits["made of host values"] += 1

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if not any(x.device.type == NAME for x in (*given, *made)):
            return out
        name = func.overloadpacket.__name__
        if n_waits := _waits(name, args, kwargs, given, made):
            self.counts.waits[name] += n_waits
        if not func.is_view:
            self.counts.n_operations += 1
            self.counts.names[name] += 1
            new = [x.numel() for x in made if all(x is not y for y in given)]
            self.counts.largest = max(self.counts.largest, *new, 0)
        return out


def _waits(name: str, args: Any, kwargs: Any, given: list[Tensor], made: list[Tensor]) -> int:
    if name in COPIES:
        source, target = given[-1 if name == "copy_" else 0], made[0]
        if source.device == target.device:
            return 0
        # what the host is to read it waits for; what it sends is copied aside first
        non_blocking = kwargs.get("non_blocking", args[-1] if args[-1] is True else False)
        return int(source.device.type == NAME or not non_blocking)
    if name in INDEXES:  # a mask becomes places; places of the host are sent
        places = [x for x in args[1] if x is not None]
        return sum(x.dtype in (torch.bool, torch.uint8) or x.device.type != NAME for x in places)
    if name == "repeat_interleave":
        return int(kwargs.get("output_size") is None)
    return WAITS.get(name, 0)


@contextmanager
def counted() -> Iterator[Counts]:
    """Count inside, the backward passes too."""
    with _Counter() as counter:
        listeners.append(counter.hear)
        try:
            yield counter.counts
        finally:
            listeners.remove(counter.hear)
