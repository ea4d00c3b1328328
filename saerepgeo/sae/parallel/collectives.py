"""One value over all processes, and points that travel between processes, with their gradients.

Every process has its own loss, and the gradient meant is that of their mean: what
DistributedDataParallel forms of the gradients that the processes find. The backward pass of each
function here is its exact adjoint for the sum of the losses; the mean is taken at the parameters,
by DistributedDataParallel or by `mean_gradient`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed

from saerepgeo.types import Float

Group = Any
"""A `torch.distributed.ProcessGroup`; None means all processes."""
Collective = Callable[[Tensor, Group], Tensor]


def is_distributed() -> bool:
    """Return whether several processes train together."""
    is_ready = distributed.is_available() and distributed.is_initialized()
    return is_ready and distributed.get_world_size() > 1


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
    """Return Σ over processes of `tensor`, differentiable; the tensor itself on one process.

    A loss made of the sum is computed on every process, so the backward pass sums as many equal
    gradients; the mean over processes takes the factor out again.
    """
    return _Collective.apply(tensor, None, _summed, _summed) if is_distributed() else tensor


def gather_points(own: Float[Tensor, "own ..."], group: Group = None) -> Float[Tensor, "all ..."]:
    """Return the rows of all processes of `group`, by rank; differentiable.

    Every process must have equally many.
    """
    return _Collective.apply(own, group, _gathered, _scattered)


def scatter_sums(partial: Float[Tensor, "all ..."], group: Group = None) -> Tensor:
    """Return this process's rows of Σ over processes of `partial`: adjoint to `gather_points`."""
    return _Collective.apply(partial, group, _scattered, _gathered)


def exchange(blocks: Tensor, group: Group = None) -> Tensor:
    """Return `out` with out[r] = what process r holds in `blocks[own rank]`; differentiable.

    `blocks` is `[process, …]`. The exchange is its own adjoint.
    """
    return _Collective.apply(blocks, group, _exchanged, _exchanged)


def mean_gradient(tensor: Tensor, group: Group = None, is_shared: bool = False) -> Tensor:
    """Return `tensor`; its gradient becomes that of the mean of the processes' losses.

    Of a tensor that each process holds a part of, the gradient is divided by the number of
    processes. A tensor that all hold (`is_shared`) has its gradients averaged over them.
    """
    return _Collective.apply(tensor, group, _same, _mean if is_shared else _divided)


def largest(number: int, device: torch.device, group: Group = None) -> int:
    """Return the largest of the processes' numbers."""
    value = torch.tensor(number, device=device)
    distributed.all_reduce(value, distributed.ReduceOp.MAX, group)
    return int(value)


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
    n_rows = rows.shape[0] * distributed.get_world_size(group)
    out = rows.new_empty((n_rows, *rows.shape[1:]))
    # torch 2.13 renames the collectives that older versions know by their old names only
    gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
    gather(out, rows.contiguous(), group=group)
    return out


def _scattered(partial: Tensor, group: Group) -> Tensor:
    n_rows = partial.shape[0] // distributed.get_world_size(group)
    out = partial.new_empty((n_rows, *partial.shape[1:]))
    scatter = getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)
    scatter(out, partial.contiguous(), group=group)
    return out


def _exchanged(blocks: Tensor, group: Group) -> Tensor:
    out = torch.empty_like(blocks, memory_format=torch.contiguous_format)
    distributed.all_to_all_single(out, blocks.contiguous(), group=group)
    return out
