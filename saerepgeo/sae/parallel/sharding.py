"""From a whole SAE to one that is divided among devices, and back."""

import copy
from typing import Any

import torch
from torch import nn

from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.parallel.tensor_parallel import TensorParallelSAE

__all__ = ["check_run", "shard", "unshard"]


def shard(model: SAEModel, mesh: Any) -> TensorParallelSAE:
    """Divide the latents of a model among the processes of a mesh (see `TensorParallelSAE`)."""
    return TensorParallelSAE(model.sae, float(model.input_scale), mesh)


def check_run(trainer: Any) -> None:
    """Raise ValueError where a run cannot be divided: it analyses, or would write pickles."""
    if trainer.testing or trainer.predicting:
        raise ValueError(
            "only `fit` and `validate` divide an SAE between devices; run the analyses on one, "
            "without `ModelParallelStrategy`"
        )
    if getattr(trainer.strategy, "_save_distributed_checkpoint", False):
        raise ValueError(
            "`save_distributed_checkpoint` must be false: torch writes and reads the index of a "
            "distributed checkpoint as a pickle; set it in the strategy's init_args"
        )


@torch.no_grad()
def unshard(model: SAEModel) -> SAEModel | None:
    """Return a sharded SAE as one model on the CPU of the first process, None on the others.

    Collective; a device holds one whole parameter at a time. A model that is not sharded comes back
    as it is, on every process.
    """
    if not isinstance(model, TensorParallelSAE):
        return model
    parameters = {}
    for name, parameter in model.sae.named_parameters():
        full = parameter.full_tensor()
        if model.rank == 0:
            parameters[name] = nn.Parameter(full.cpu())
    if model.rank != 0:
        return None
    sae = copy.copy(model.sae)  # what else it holds has no state
    sae.cfg, sae._parameters = copy.copy(model.sae.cfg), parameters
    return SAEModel(sae, float(model.input_scale))
