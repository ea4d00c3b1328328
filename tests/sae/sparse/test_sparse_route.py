"""BatchTopK, JumpReLU and ReLU on active pairs against SAELens' own dense training steps."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.sparse import encoding
from saerepgeo.sae.sparse.selection import select_above, select_batch_topk
from saerepgeo.types import SparseLatents

D_IN, D_SAE, N = 24, 96, 64

ROUTES: dict[str, dict[str, Any]] = {
    "batchtopk": {"k": 3.5},
    "batchtopk_rescaled": {"k": 4, "rescale_acts_by_decoder_norm": True},
    "jumprelu_step": {"l0_coefficient": 0.3},
    "jumprelu_to_input": {"jumprelu_ste_to_input": True, "l0_coefficient": 0.3},
    "jumprelu_tanh": {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_ste_to_input": True},
    "jumprelu_quadratic": {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 2.0},
    "jumprelu_dead": {"pre_act_loss_coefficient": 0.01},
    "standard": {"l1_coefficient": 0.2},
    "standard_l2": {"l1_coefficient": 0.2, "lp_norm": 2.0},
    "standard_warm_up": {"l1_coefficient": 0.2, "l1_warm_up_steps": 7},
}


@pytest.fixture
def always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_SHARE", dict.fromkeys(encoding.MAX_SHARE, 1.0))


def data(seed: int, n: int = N) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed))


def model_of(name: str) -> SAEModel:
    """Return a model with decoder rows of various norms and, where it has any, thresholds."""
    model = new_sae(name.split("_")[0], d_in=D_IN, d_sae=D_SAE, **ROUTES[name]).train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.sae.W_dec.mul_(0.5 + torch.rand(D_SAE, 1, generator=generator))
        model.sae.b_dec.copy_(0.1 * torch.randn(D_IN, generator=generator))
        if hasattr(model.sae, "threshold"):
            model.sae.threshold.copy_(1.5 * torch.rand(D_SAE, generator=generator))
    return model


def lens_step(sae: Any, batch: Tensor, dead: Tensor, step: int) -> Any:
    from sae_lens.saes.sae import TrainStepInput

    coefficients = {}
    for key, value in sae.get_coefficients().items():
        share = min(1.0, step / value.warm_up_steps) if value.warm_up_steps else 1.0
        coefficients[key] = value.value * share
    return sae.training_forward_pass(TrainStepInput(batch, coefficients, dead, step, False))


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach(), expected.detach()
    scale = float(expected.norm())
    return float((found - expected).norm()) / scale if scale else float(found.norm())


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("name", list(ROUTES))
def test_twenty_steps_equal_saelens(name: str) -> None:
    """Latents and losses to 1e-5, every gradient to 1e-4, at every step of the same training."""
    model = model_of(name)
    lens = copy.deepcopy(model.sae)
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in (model, lens)]
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[3:9] = True
    for step in range(20):
        batch = data(100 + step)
        found, expected = model(batch, dead, step), lens_step(lens, batch, dead, step)
        loss = (found.recons - batch).square().sum(dim=1).mean() + sum(found.losses.values())
        for optimizer, total in zip(optimizers, (loss, expected.loss), strict=True):
            optimizer.zero_grad()
            total.backward()

        assert isinstance(found.latents, SparseLatents)
        assert relative(found.latents.to_dense(), expected.feature_acts) < 1e-5
        for key, value in found.losses.items():
            assert_close(value, expected.losses[key], rtol=1e-5, atol=1e-6)
        for (key, parameter), other in zip(
            model.sae.named_parameters(), lens.parameters(), strict=True
        ):
            assert relative(parameter.grad, other.grad) < 1e-4, (key, step)
        for optimizer in optimizers:
            optimizer.step()
    if hasattr(lens, "topk_threshold"):
        assert_close(model.sae.topk_threshold, lens.topk_threshold, rtol=1e-6, atol=0.0)


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("name", ["batchtopk", "jumprelu_to_input", "standard"])
def test_autocast_stays_within_bfloat16_of_float32(name: str) -> None:
    model = model_of(name)
    recons = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = model(data(5, 512))
        assert isinstance(output.latents, SparseLatents)
        assert output.recons.dtype == torch.float32
        recons.append(output.recons)
    # a pair at the threshold may flip under rounding
    assert 0 < relative(recons[1], recons[0]) < 0.1


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("name", ["batchtopk", "batchtopk_rescaled", "jumprelu_step", "standard"])
def test_evaluation_equals_the_dense_route(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the learned threshold too, where a batch of one point has the same latents."""
    model = model_of(name)
    for step in range(5):
        model(data(step))
    model.eval()
    points = data(50)
    with torch.no_grad():
        sparse = model(points)
        alone = model.encode(points[:1]).latents
    monkeypatch.setattr(encoding, "MAX_SHARE", dict.fromkeys(encoding.MAX_SHARE, 0.0))
    dense = model(points)

    assert isinstance(sparse.latents, SparseLatents)
    assert isinstance(dense.latents, Tensor)
    assert_close(sparse.latents.to_dense(), dense.latents, rtol=1e-5, atol=1e-5)
    assert_close(sparse.recons, dense.recons, rtol=1e-5, atol=1e-5)
    assert_close(alone.to_dense(), dense.latents[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_autocast", [False, True])
def test_dense_latents_where_many_are_active(is_autocast: bool) -> None:
    """The route follows the share of active latents; both give latents of the same shape."""
    model, points = model_of("standard"), data(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        many = model(points).latents
        with torch.no_grad():
            model.sae.b_enc.sub_(4.0)
        few = model(points).latents

    assert isinstance(many, Tensor)
    assert isinstance(few, SparseLatents)
    assert few.to_dense().shape == many.shape


@pytest.mark.usefixtures("always_sparse")
def test_nothing_active() -> None:
    """A threshold that nothing passes: the bias is the reconstruction, no gradient is a NaN."""
    model = model_of("jumprelu_step")
    with torch.no_grad():
        model.sae.threshold.fill_(1e3)
    output = model(data(2))
    (output.recons.square().mean() + output.losses["l0_loss"]).backward()

    assert torch.equal(output.recons, model.sae.b_dec.expand(N, D_IN))
    for parameter in model.sae.parameters():
        assert bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.0])
@pytest.mark.parametrize("n", [0, 1, 700])
def test_all_above_the_threshold_are_found(n: int, shift: float, dtype: torch.dtype) -> None:
    """Thresholds of either sign, more points than a chunk holds; bits of bfloat16 compared."""
    bias = torch.randn(40, generator=torch.Generator().manual_seed(5))
    points, weight = data(3, n), data(4, 40).t()
    low = torch.linspace(-1, 1, 40) + shift
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = select_above(points, weight, bias, low, 1.0)
        scores = torch.nn.functional.linear(points.to(dtype), weight.t().to(dtype), bias.to(dtype))

    assert found is not None
    values, pairs = found
    assert torch.equal(values, scores[pairs.points, pairs.columns])
    is_found = torch.zeros(n, 40, dtype=torch.bool)
    is_found[pairs.points, pairs.columns] = True
    assert bool(is_found[scores > low].all())
    is_extra = is_found & ~(scores > low)
    below = (low - scores.float())[is_extra]
    spacing = (torch.finfo(dtype).eps * low.abs()).expand(n, 40)[is_extra]
    assert bool((below <= 1.5 * spacing).all()), "only what the scores' precision cannot tell apart"
    assert dtype != torch.float32 or not len(below)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_kept", [0, 1, 2000, 20000])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_largest_of_the_batch_are_found(spread: float, n_kept: int, dtype: torch.dtype) -> None:
    """Also where points differ so much that the guess from a sample is off."""
    generator = torch.Generator().manual_seed(6)
    points = data(6, 700) * (spread * torch.randn(700, 1, generator=generator)).exp()
    weight, bias = data(7, 64).t(), torch.zeros(64)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = select_batch_topk(points, weight, bias, n_kept, 1.0)
        scores = torch.nn.functional.linear(points.to(dtype), weight.t().to(dtype), bias.to(dtype))

    assert found is not None
    values, pairs = found
    expected = scores.relu().flatten().topk(n_kept).values
    assert torch.equal(values.sort(descending=True).values, expected)
    assert torch.equal(values, scores[pairs.points, pairs.columns])
    assert len(set(zip(pairs.points.tolist(), pairs.columns.tolist(), strict=True))) == n_kept


def test_fewer_positive_scores_than_wanted() -> None:
    points, weight, bias = data(8, 300), data(9, 64).t(), torch.full((64,), -9.0)
    scores = points @ weight + bias
    found = select_batch_topk(points, weight, bias, 3000, 1.0)

    assert found is not None
    assert 0 < len(found[0]) == int((scores > 0).sum()) < 3000


def test_too_many_for_the_sparse_route() -> None:
    points, weight, bias = data(8, 300), data(9, 64).t(), torch.zeros(64)

    assert select_above(points, weight, bias, torch.zeros(()), 0.4) is None
    assert select_batch_topk(points, weight, bias, 3000, 0.1) is None


@pytest.mark.parametrize(("share", "is_found"), [(0.25, True), (0.2499, False)])
def test_a_selection_gives_up_beyond_its_share_of_all_scores(share, is_found):
    """Two of eight latents are active at each of more points than one chunk of scores has."""
    points = torch.tensor([[1.0, 2.0, 0, 0, -1, -1, -1, 0]]).repeat(1300, 1)
    found = select_above(points, torch.eye(8), torch.zeros(8), torch.zeros(()), share)
    assert (found is not None) == is_found
    if found is not None:
        values, pairs = found
        assert torch.equal(values, torch.tensor([1.0, 2.0]).repeat(1300))
        assert torch.equal(pairs.columns, torch.tensor([0, 1]).repeat(1300))
        assert torch.equal(pairs.offsets, 2 * torch.arange(1301))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_a_number_is_selected_and_not_lost(dtype) -> None:
    points = data(3, 5)
    points[2, 1] = torch.nan
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = select_above(points, data(4, 40).t(), torch.zeros(40), torch.zeros(()), 1.0)
    assert found is not None
    values, pairs = found
    assert pairs.points[values.isnan()].tolist() == [2] * 40
