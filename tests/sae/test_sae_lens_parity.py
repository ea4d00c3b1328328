"""Every architecture against SAELens' own code: latents, reconstructions, losses, gradients."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.sae.model import SAEModel
from saerepgeo.types import to_dense

MODES = ("none", "constant_norm_rescale", "layer_norm")


def assert_equal_to_1e6(found: Tensor, expected: Tensor) -> None:
    """Differ by at most 1e-6 of the largest entry: sums are taken in another order."""
    assert_close(found, expected, rtol=0.0, atol=1e-6 * float(expected.detach().abs().max()))


def lens_step(sae: Any, residuals: Tensor, dead: Tensor | None, step: int) -> Any:
    """One training pass with the coefficients that SAELens' trainer holds at `step`."""
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.training.optim import CoefficientScheduler

    weights = {}
    for name, (value, warm_up) in sae.get_coefficients().items():
        scheduler = CoefficientScheduler(warm_up_steps=warm_up, final_value=value)
        for _ in range(step):
            scheduler.step()
        weights[name] = scheduler.current_value
    return sae.training_forward_pass(TrainStepInput(residuals, weights, dead, step, False))


@pytest.mark.parametrize("mode", MODES)
def test_encode_and_decode_equal_saelens(
    make_lens: Callable[..., Any], residuals: Tensor, architecture: str, mode: str
) -> None:
    lens = make_lens(architecture, normalize_activations=mode)
    model = SAEModel(copy.deepcopy(make_lens(architecture, normalize_activations=mode)))

    latents, normalization = model.encode(residuals)
    expected = lens.encode(residuals)

    assert_equal_to_1e6(to_dense(latents), expected)
    assert_equal_to_1e6(model.decode(latents, normalization), lens.decode(expected))


@pytest.mark.parametrize("step", [0, 3, 50])
@pytest.mark.parametrize("with_dead", [False, True])
def test_training_losses_and_gradients_equal_saelens(
    make_lens: Callable[..., Any],
    residuals: Tensor,
    architecture: str,
    step: int,
    with_dead: bool,
) -> None:
    lens, model = make_lens(architecture), SAEModel(make_lens(architecture)).train()
    dead = (torch.arange(40) % 4 == 0) if with_dead else torch.zeros(40, dtype=torch.bool)

    output = model(residuals, dead, step=step)
    loss = (output.recons - residuals).square().sum(dim=1).mean() + sum(output.losses.values())
    loss.backward()
    expected = lens_step(lens, residuals, dead, step)
    expected.loss.backward()

    assert set(output.losses) == set(expected.losses) - {"mse_loss"}
    for name, value in output.losses.items():
        assert_close(value, expected.losses[name], atol=1e-6, rtol=1e-5)
    assert_close(loss, expected.loss, atol=1e-6, rtol=1e-5)
    gradients = dict(lens.named_parameters())
    for name, parameter in model.sae.named_parameters():
        assert_close(parameter.grad, gradients[name].grad, atol=1e-5, rtol=1e-5, msg=name)
    for name, buffer in lens.named_buffers():
        assert_close(model.sae.get_buffer(name), buffer)


@pytest.mark.parametrize("n_dead", [2, 6, 30])
@pytest.mark.parametrize("name", ["topk_rescaled", "abstopk"])
def test_few_and_many_dead_latents(
    make_lens: Callable[..., Any], residuals: Tensor, name: str, n_dead: int
) -> None:
    """Fewer than d_model/2 = 6: the term shrinks with them. More: only the strongest take part."""
    lens, model = make_lens(name), SAEModel(make_lens(name)).train()
    dead = torch.arange(40) < n_dead

    losses = model(residuals, dead).losses
    expected = lens_step(lens, residuals, dead, 0).losses

    assert losses["auxiliary_reconstruction_loss"] > 0
    assert_close(
        losses["auxiliary_reconstruction_loss"],
        expected["auxiliary_reconstruction_loss"],
        atol=1e-6,
        rtol=1e-5,
    )


def test_matryoshka_auxiliary_per_level_equals_saelens(
    make_lens: Callable[..., Any], residuals: Tensor
) -> None:
    settings = {"use_matryoshka_aux_loss": True}
    lens = make_lens("matryoshka_batchtopk", **settings)
    model = SAEModel(make_lens("matryoshka_batchtopk", **settings)).train()
    dead = torch.arange(40) % 3 == 0

    losses = model(residuals, dead).losses

    for name, value in lens_step(lens, residuals, dead, 0).losses.items():
        if name != "mse_loss":
            assert_close(losses[name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", ["constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("name", ["topk", "gated", "matryoshka_batchtopk"])
def test_reconstructing_terms_are_in_residual_units(
    make_lens: Callable[..., Any], residuals: Tensor, name: str, mode: str
) -> None:
    """Residuals ten times as large make reconstruction terms a hundred times as large."""
    model = SAEModel(make_lens(name, normalize_activations=mode)).train()
    dead = torch.arange(40) < 10

    small, large = model(residuals, dead).losses, model(10 * residuals, dead).losses

    for term in small:
        if "l1" not in term:
            assert_close(large[term], 100 * small[term], rtol=1e-3, atol=0.0)


def test_batchtopk_evaluates_as_its_exported_form(
    make_lens: Callable[..., Any], residuals: Tensor
) -> None:
    """With a learned threshold a point's latents do not depend on the rest of the batch."""
    model = SAEModel(make_lens("batchtopk"))
    model.train()(residuals)
    threshold = float(model.sae.topk_threshold)

    model.eval().requires_grad_(False)
    latents = model.encode(residuals).latents
    alone = torch.cat([model.encode(point[None]).latents for point in residuals])

    assert threshold > 0
    assert_close(latents, alone)
    assert float(latents[latents > 0].min()) > threshold


def test_no_terms_in_evaluation(make_lens: Callable[..., Any], residuals: Tensor) -> None:
    assert SAEModel(make_lens("standard")).eval()(residuals).losses == {}
    assert SAEModel(make_lens("standard")).train()(residuals).losses != {}


def test_coefficient_scale_multiplies_sparsity_terms(
    make_lens: Callable[..., Any], residuals: Tensor, architecture: str
) -> None:
    model = SAEModel(make_lens(architecture)).train()
    dead = torch.arange(40) < 10

    whole = model(residuals, dead, step=50).losses
    half = model(residuals, dead, step=50, coefficient_scale=0.5).losses

    for name, value in whole.items():
        factor = 1.0 if name.startswith("inner_mse") else 0.5
        assert_close(half[name], factor * value)


def test_thresholds_are_projected_to_zero_while_training(
    make_lens: Callable[..., Any], residuals: Tensor
) -> None:
    model = SAEModel(make_lens("jumprelu"))
    with torch.no_grad():
        model.sae.threshold.sub_(0.5)
    negative = int((model.sae.threshold < 0).sum())

    model.eval()(residuals)
    assert int((model.sae.threshold < 0).sum()) == negative > 0
    model.train()(residuals)
    assert int((model.sae.threshold < 0).sum()) == 0
