"""Latents divided among devices."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.sae.parallel.collectives import all_reduce_sum as all_reduce_sum
    from saerepgeo.sae.parallel.tensor_parallel import TensorParallelSAE as TensorParallelSAE
    from saerepgeo.sae.parallel.tensor_parallel import check_run as check_run
    from saerepgeo.sae.parallel.tensor_parallel import shard as shard
    from saerepgeo.sae.parallel.tensor_parallel import unshard as unshard

export_names(__name__)
