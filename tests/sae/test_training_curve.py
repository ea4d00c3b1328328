"""200 training steps beside SAELens' own: the same loss at every step."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.model import SAEModel


def data(step: int) -> Tensor:
    """Sparse sums of fixed directions: something that an SAE can learn."""
    directions = torch.randn(192, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1000 + step)
    active = (torch.rand(512, 192, generator=generator) < 0.04).float()
    return active * torch.rand(512, 192, generator=generator) @ directions


def curves(enabled: bool, is_rescaled: bool) -> tuple[Tensor, Tensor]:
    model = new_sae(
        "topk", d_in=64, d_sae=256, k=8, rescale_acts_by_decoder_norm=is_rescaled
    ).train()
    lens = copy.deepcopy(model.sae)
    optimizers = [torch.optim.Adam(m.parameters(), lr=5e-4) for m in (model, lens)]
    found, expected = [], []
    for step in range(200):
        batch = data(step)
        dead = torch.zeros(256, dtype=torch.bool)
        dead[:7] = step >= 100
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = [our_loss(model, batch, dead), lens_loss(lens, batch, dead)]
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
            optimizer.step()
        found.append(losses[0].detach())
        expected.append(losses[1].detach())
    return torch.stack(found), torch.stack(expected)


def our_loss(model: SAEModel, batch: Tensor, dead: Tensor) -> Tensor:
    output = model(batch, dead)
    return (output.recons - batch).square().sum(dim=1).mean() + sum(output.losses.values())


def lens_loss(lens: Any, batch: Tensor, dead: Tensor) -> Tensor:
    from sae_lens.saes.sae import TrainStepInput

    loss: Tensor = lens.training_forward_pass(TrainStepInput(batch, {}, dead, 0, False)).loss
    return loss


@pytest.mark.parametrize(
    ("enabled", "tolerance", "is_rescaled"),
    [
        (False, 1e-3, False),
        (True, 1e-2, True),
        pytest.param(False, 1e-3, True, marks=pytest.mark.thorough),
        pytest.param(True, 1e-2, False, marks=pytest.mark.thorough),
    ],
)
def test_same_loss_curve_as_saelens(enabled: bool, tolerance: float, is_rescaled: bool) -> None:
    found, expected = curves(enabled, is_rescaled)

    assert expected[-20:].mean() < 0.5 * expected[:5].mean()
    assert float(((found - expected) / expected).abs().max()) < tolerance
