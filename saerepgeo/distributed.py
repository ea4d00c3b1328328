"""One value over all processes: sums reduced with their gradient."""

from typing import Any

import torch
from torch import Tensor, distributed


def is_distributed() -> bool:
    """Return whether several processes train together."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Return Σ over processes of `tensor`, differentiable; the tensor itself on one process.

    A loss made of the sum is computed on every process, so the backward pass sums as many equal
    gradients; DistributedDataParallel's mean over processes takes the factor out again.
    """
    if not is_distributed():
        return tensor
    reduced: Tensor = _AllReduceSum.apply(tensor)
    return reduced
