"""Latents divided among devices."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.sae.parallel.collectives import all_reduce_sum
    from saerepgeo.sae.parallel.tensor_parallel import TensorParallelSAE, check_run, shard, unshard

__all__ = ["TensorParallelSAE", "all_reduce_sum", "check_run", "shard", "unshard"]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "TensorParallelSAE": "tensor_parallel",
        "all_reduce_sum": "collectives",
        "check_run": "tensor_parallel",
        "shard": "tensor_parallel",
        "unshard": "tensor_parallel",
    },
)
