"""One value over all processes, and points that travel between processes, with their gradients.

Every process has its own loss; the gradient meant is that of their mean. The backward pass of each
function is its adjoint for the sum of the losses; the mean is taken at the parameters, by
DistributedDataParallel or by `mean_gradient`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed

from saerepgeo.types import Float

Group = Any
"""A `torch.distributed.ProcessGroup`; None means all processes."""
Collective = Callable[[Tensor, Group], Tensor]


class _Collective(torch.autograd.Function):
    """Any collective whose backward pass is another, its adjoint."""

    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, group: Group, collective: Collective, adjoint: Collective
    ) -> Tensor:
        ctx.group, ctx.adjoint = group, adjoint
        return collective(tensor, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return ctx.adjoint(grads[0], ctx.group), None, None, None


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Return Σ over processes of `tensor`, differentiable; the tensor itself on one process."""
    return _Collective.apply(tensor, None, _summed, _summed) if is_distributed() else tensor


class DelayedMaximum:
    """The largest of a number over all processes, known at the next call: nobody waits for it.

    It travels between the hosts by gloo, beside what devices compute and send; no device is read.
    Every process must make the same calls.
    """

    def __init__(self) -> None:
        self._group = distributed.new_group(backend="gloo")
        self._asked: tuple[Tensor, Any] | None = None

    def exchange(self, number: int) -> int:
        """Give a number ≥ 0; return the largest of those given at the call before, at first 0."""
        largest, given = self.last(), torch.tensor([number], device="cpu")
        options = distributed.ReduceOp.MAX, self._group
        self._asked = given, distributed.all_reduce(given, *options, async_op=True)
        return largest

    def last(self) -> int:
        """Return the largest of the numbers given last, once: waits for those that come late."""
        if self._asked is None:
            return 0
        (given, work), self._asked = self._asked, None
        work.wait()
        return int(given)

    def close(self) -> int:
        """Return `last()`, and free what was taken."""
        largest = self.last()
        distributed.destroy_process_group(self._group)
        return largest


def is_distributed() -> bool:
    """Return whether several processes compute together."""
    is_ready = distributed.is_available() and distributed.is_initialized()
    return is_ready and distributed.get_world_size() > 1


def gather_points(own: Float[Tensor, "own ..."], group: Group = None) -> Float[Tensor, "all ..."]:
    """Return the rows of all processes, equally many of each, by rank; differentiable."""
    return _Collective.apply(own, group, _gathered, _scattered)


def scatter_sums(partial: Float[Tensor, "all ..."], group: Group = None) -> Tensor:
    """Return this process's rows of Σ over processes of `partial`: adjoint to `gather_points`."""
    return _Collective.apply(partial, group, _scattered, _gathered)


def exchange(blocks: Tensor, group: Group = None) -> Tensor:
    """Return `out` with out[r] = `blocks[own rank]` of process r; differentiable, self-adjoint."""
    return _Collective.apply(blocks, group, _exchanged, _exchanged)


def mean_gradient(tensor: Tensor, group: Group = None, is_shared: bool = False) -> Tensor:
    """Return `tensor`; its gradient becomes that of the mean of the processes' losses.

    The gradient of a process's part is divided by their number; that of a tensor that all hold
    (`is_shared`) is averaged over them.
    """
    return _Collective.apply(tensor, group, _same, _mean if is_shared else _divided)


def _same(tensor: Tensor, group: Group) -> Tensor:
    return tensor.view_as(tensor)


def _summed(tensor: Tensor, group: Group) -> Tensor:
    total = tensor.clone()
    distributed.all_reduce(total, group=group)
    return total


def _divided(tensor: Tensor, group: Group) -> Tensor:
    return tensor / distributed.get_world_size(group)


def _mean(tensor: Tensor, group: Group) -> Tensor:
    return _summed(_divided(tensor, group), group)


def _gathered(rows: Tensor, group: Group) -> Tensor:
    out = rows.new_empty(len(rows) * distributed.get_world_size(group), *rows.shape[1:])
    # torch 2.13 renames the collectives that older versions know by their old names only
    gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
    gather(out, rows.contiguous(), group=group)
    return out


def _scattered(partial: Tensor, group: Group) -> Tensor:
    out = partial.new_empty(len(partial) // distributed.get_world_size(group), *partial.shape[1:])
    scatter = getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)
    scatter(out, partial.contiguous(), group=group)
    return out


def _exchanged(blocks: Tensor, group: Group) -> Tensor:
    out = torch.empty_like(blocks, memory_format=torch.contiguous_format)
    distributed.all_to_all_single(out, blocks.contiguous(), group=group)
    return out
