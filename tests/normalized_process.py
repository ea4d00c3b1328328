"""What the test of input normalization runs in each process: `normalized_process FOLDER RANK`."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.model import SAEModel
from saerepgeo.types import SAEOutput

D_IN, D_SAE, STEPS, BATCH, WORLD = 16, 48, 4, 64, 2
CASES = {
    "layer_norm": ("topk", {"k": 4}),
    "constant_norm_rescale": ("standard", {"l1_coefficient": 0.01}),
    "expected_average_only_in": ("jumprelu", {"l0_coefficient": 0.01}),
}
"""Input normalization to architecture and its settings."""


def make(mode: str) -> SAEModel:
    architecture, settings = CASES[mode]
    scale = 0.4 if mode == "expected_average_only_in" else 1.0
    return new_sae(
        architecture,
        d_in=D_IN,
        d_sae=D_SAE,
        normalize_activations=mode,
        input_scale=scale,
        **settings,
    )


def batch(step: int) -> Tensor:
    """Return points off the origin, of unequal norm."""
    generator = torch.Generator().manual_seed(step)
    points = torch.randn(BATCH, D_IN, generator=generator) + 0.5
    return points * (1 + torch.arange(BATCH)[:, None] % 7)


def train(model: SAEModel, run: Callable[..., SAEOutput], share: slice) -> list[float]:
    """Take some steps on a share of every batch, as case 3 does; return the losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    dead = torch.arange(D_SAE) % 5 == 0  # the auxiliary loss takes part
    losses = []
    for step in range(STEPS):
        points = batch(step)[share]
        out = run(points, dead_mask=dead)
        loss = (out.recons - points).square().sum(1).mean() + sum(out.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def interleaved(model: SAEModel) -> list[tuple[Tensor, Tensor]]:
    """Return (found, expected) for decodes in an order that no state would survive."""
    first, second = batch(100), batch(101)[:10]
    alone = [model.decode(*model.encode(points)) for points in (first, second)]
    a, b = model.encode(first), model.encode(second)
    model.encode(first)
    again = [model.decode(*a), model.decode(*a), model.decode(*b), model.decode(*a)]
    expected = [alone[0], alone[0], alone[1], alone[0]]
    return list(zip(again, expected, strict=True))


def _main(folder: Path, rank: int) -> None:
    rendezvous = f"file://{folder / 'rendezvous'}"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=WORLD)
    for mode in CASES:
        model = make(mode).train()
        half = BATCH // WORLD
        wrapped = DistributedDataParallel(model)
        train(model, wrapped, slice(rank * half, (rank + 1) * half))
        model.eval()
        with torch.no_grad():
            checks = interleaved(model)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                checks += interleaved(model)
            assert all(found.equal(expected) for found, expected in checks), mode
        save_file(model.state_dict(), folder / f"{mode}_{rank}.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
