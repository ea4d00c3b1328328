"""One process of a sharded SAE: `python -m tensor_parallel_process RANK WORLD FOLDER`.

Rank 0 saves what came. Each case runs forward and backward on points of its own, and the test
does the same in one process.
"""

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import SparseLatents

D_IN, D_SAE, SIZES = 6, 16, (7, 4)
CASES: dict[str, dict[str, Any]] = {
    "plain": {"k": 3},
    "more than a process has": {"k": 11},
    "bias in the output alone": {"k": 3, "apply_b_dec_to_input": False},
    "rescaled": {"k": 3, "rescale_acts_by_decoder_norm": True},
    "layer norm": {"k": 3, "normalize_activations": "layer_norm"},
    "few dead": {"k": 3, "n_dead": 2},
    "many dead": {"k": 3, "n_dead": 13},
    "rescaled and dead": {"k": 3, "n_dead": 13, "rescale_acts_by_decoder_norm": True},
    "free norms": {"k": 3, "free_norms": True},
    "no points on one": {"k": 3, "sizes": (5, 0)},
    "decoded apart": {"k": 3, "is_apart": True, "normalize_activations": "layer_norm"},
    "rescaled and decoded apart": {"k": 3, "is_apart": True, "rescale_acts_by_decoder_norm": True},
}
OWN = ("n_dead", "free_norms", "sizes", "is_apart")
"""What says something of a case and is no setting of its SAE."""


def make(case: dict[str, Any]) -> SAEModel:
    """Return the SAE of a case in float64, with biases that are not zero."""
    settings = {n: v for n, v in case.items() if n not in OWN}
    model = new_sae("topk", d_in=D_IN, d_sae=D_SAE, **settings).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for bias in (model.sae.b_enc, model.sae.b_dec):
            bias.copy_(torch.randn(bias.shape, generator=generator, dtype=torch.float64) / 4)
        if case.get("free_norms"):
            model.sae.W_dec *= 0.5 + torch.rand(D_SAE, 1, generator=generator, dtype=torch.float64)
            return SAEModel(model.sae).double()
    return model


def points_of(case: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return the points of each process."""
    generator = torch.Generator().manual_seed(2)
    sizes = case.get("sizes", SIZES)
    points = torch.randn(sum(sizes), D_IN, generator=generator, dtype=torch.float64)
    return points.split(sizes)


def loss_of(model: SAEModel, points: Tensor, case: dict[str, Any]) -> tuple[Tensor, Any]:
    """Return a loss that every parameter and every output has a part in, and the output."""
    dead = torch.arange(D_SAE) % 4 != 1 if "n_dead" in case else None
    if dead is not None:
        dead = dead & (dead.cumsum(0) <= case["n_dead"])
    out = model(points, dead_mask=dead)
    if case.get("is_apart"):
        latents, normalization = model.encode(points)
        plain = SparseLatents(latents.values, latents.indices, D_SAE)  # as if made by the caller
        out = out._replace(recons=model.decode(plain, normalization))
    effective = model.effective_latents(out.latents)
    weights = torch.linspace(1, 2, D_SAE, dtype=torch.float64)[effective.indices]
    loss = (out.recons - points).square().sum() + (effective.values * weights).square().sum()
    return loss + sum(out.losses.values(), loss.new_zeros(())), out


def gradients_of(model: SAEModel) -> dict[str, Tensor]:
    return {name: full(p.grad) for name, p in model.sae.named_parameters()}


def full(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def dense(latents: SparseLatents) -> Tensor:
    return latents.to_dense().detach()


def run(name: str, mesh: Any, rank: int) -> dict[str, Tensor]:
    """Return loss, outputs of rank 0, gradients, and the decoder after its constraint."""
    from saerepgeo.sae.parallel.tensor_parallel import shard, unshard

    case = CASES[name]
    model = shard(make(case), mesh)
    for parameter in (model.sae.W_enc, model.sae.W_dec, model.sae.b_enc):
        held = parameter.to_local().untyped_storage().nbytes()  # no view of the whole
        assert held == parameter.numel() * parameter.itemsize // len(SIZES)
    loss, out = loss_of(model, points_of(case)[rank], case)
    loss.backward()
    found = {"loss": loss.detach(), "recons": out.recons.detach(), "latents": dense(out.latents)}
    found |= gradients_of(model)
    found["norms"] = model.decoder_norms().detach()
    model.remove_parallel_gradient_()
    found["projected"] = full(model.sae.W_dec.grad)
    with torch.no_grad():
        model.sae.W_dec.to_local().mul_(1 + rank)
    model.normalize_decoder_()
    with pytest.raises(ValueError, match="must be `SparseLatents`"):
        model._decode(torch.zeros(2, D_SAE))
    exported = unshard(model)
    assert (exported is None) == (rank != 0)
    if exported is not None:
        found["normalized"] = exported.sae.W_dec.detach()
        assert exported.sae.state_dict().keys() == make(case).sae.state_dict().keys()
    return {f"{name}/{key}": tensor.clone().contiguous() for key, tensor in found.items()}


def check_delayed_maximum(rank: int) -> None:
    """Check that a process goes on while the other one is behind, and all learn the same."""
    from saerepgeo.sae.parallel.collectives import DelayedMaximum

    maximum = DelayedMaximum()
    time.sleep(rank)
    start = time.monotonic()
    assert maximum.exchange(3 * rank) == 0
    assert rank or time.monotonic() - start < 0.5
    assert [maximum.exchange(0), maximum.exchange(0), maximum.exchange(rank)] == [3, 0, 0]
    assert maximum.close() == 1


def main(rank: int, world: int, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    rendezvous = f"file://{folder / 'rendezvous'}"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (1, world), mesh_dim_names=("data_parallel", "tensor_parallel"))
    check_delayed_maximum(rank)
    found: dict[str, Tensor] = {}
    for name in CASES:
        found |= run(name, mesh, rank)
    save_file(found, folder / f"{rank}.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
