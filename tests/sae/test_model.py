"""What `SAEModel` adds to SAELens: no state between calls, rows kept at norm."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.load import load_sae
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.normalization import normalize
from saerepgeo.types import SparseLatents, to_dense

MODES = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("enabled", [False, True])
@torch.no_grad()
def test_calls_do_not_disturb_each_other(
    make_lens: Callable[..., Any],
    residuals: Tensor,
    architecture: str,
    mode: str,
    enabled: bool,
) -> None:
    """Encode a, encode b, decode a twice, decode b: as if each had been alone."""
    scale = 0.3 if mode == "expected_average_only_in" else 1.0
    model = SAEModel(make_lens(architecture, normalize_activations=mode), scale).eval()
    other = 7 * residuals[:5] - 2
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        alone = [model.decode(*model.encode(points)) for points in (residuals, other)]

        first, second = model.encode(residuals), model.encode(other)
        again = model.encode(residuals)
        decoded = [model.decode(*first), model.decode(*first), model.decode(*second)]

    assert torch.equal(to_dense(first.latents), to_dense(again.latents))
    for found, expected in zip(decoded, [alone[0], alone[0], alone[1]], strict=True):
        assert found.dtype == torch.float32
        assert_close(found, expected)


@pytest.mark.parametrize("mode", ["constant_norm_rescale", "layer_norm"])
def test_decode_without_its_normalization_is_refused(residuals: Tensor, mode: str) -> None:
    model = new_sae("topk", d_in=12, d_sae=40, k=3, normalize_activations=mode)
    with pytest.raises(ValueError, match="`normalization` must be given to decode"):
        model.decode(model.encode(residuals).latents)


def test_constant_scale_needs_no_normalization_to_decode(residuals: Tensor) -> None:
    options = {"normalize_activations": "expected_average_only_in", "input_scale": 0.25}
    model = new_sae("topk", d_in=12, d_sae=40, k=3, **options)
    latents, normalization = model.encode(residuals)

    assert_close(model.decode(latents), model.decode(latents, normalization))
    assert_close(normalization.scale, torch.full((24, 1), 4.0))


@pytest.mark.parametrize("mode", MODES)
def test_zero_and_constant_points_stay_finite_with_finite_gradients(mode: str) -> None:
    model = new_sae("topk", d_in=12, d_sae=40, k=40, normalize_activations=mode).train()
    points = torch.stack([torch.zeros(12), torch.full((12,), 3.0), torch.arange(12.0)])

    output = model(points)
    (output.recons - points).square().sum().backward()

    assert output.recons.isfinite().all()
    assert_close(output.recons[0], torch.zeros(12))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_layer_norm_takes_mean_and_deviation_off(residuals: Tensor) -> None:
    sae_in, normalization = normalize(residuals, "layer_norm")

    assert_close(sae_in.mean(dim=1), torch.zeros(24), atol=1e-5, rtol=0.0)
    assert_close(sae_in.std(dim=1), torch.ones(24), atol=1e-4, rtol=0.0)
    assert_close(normalization.undo(sae_in), residuals, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["topk", "topk_rescaled", "standard", "jumprelu", "gated"])
@torch.no_grad()
def test_effective_latents_ignore_the_decoder_norms(
    make_lens: Callable[..., Any], residuals: Tensor, name: str
) -> None:
    """z_i → a·z_i with W_dec,i → W_dec,i / a changes nothing that is measured."""
    model = SAEModel(make_lens(name)).eval()
    moved = copy.deepcopy(model)
    scale = torch.rand(40, generator=torch.Generator().manual_seed(4)) + 0.5
    latents = to_dense(model.encode(residuals).latents)
    moved.sae.W_dec.div_(scale[:, None])

    expected = to_dense(model.effective_latents(model.encode(residuals).latents))
    if name == "topk_rescaled":  # latents carry the norm; folding it in changes no latent
        assert torch.equal(expected, latents)
        return

    assert_close(moved.effective_latents(latents * scale), expected, rtol=1e-5, atol=1e-5)
    unit = model.sae.W_dec / model.decoder_norms()[:, None]
    assert_close(expected @ unit, latents @ model.sae.W_dec, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["topk", "topk_rescaled", "standard"])
def test_effective_latents_of_selected_rows(
    make_lens: Callable[..., Any], residuals: Tensor, name: str
) -> None:
    model = SAEModel(make_lens(name))
    latents = model.encode(residuals).latents
    mask = torch.arange(24) % 3 == 0

    chosen = to_dense(model.effective_latents(latents, rows=mask))

    assert_close(chosen, to_dense(model.effective_latents(latents))[mask])
    by_number = model.effective_latents(latents, rows=mask.nonzero().squeeze(1))
    assert_close(to_dense(by_number), chosen)


def test_effective_latents_carry_gradients_to_encoder_and_decoder(
    make_lens: Callable[..., Any], residuals: Tensor
) -> None:
    sparse, lens = SAEModel(make_lens("topk")), make_lens("topk")

    to_dense(sparse.effective_latents(sparse.encode(residuals).latents)).square().sum().backward()
    (lens.encode(residuals) * lens.W_dec.norm(dim=1)).square().sum().backward()

    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        expected = getattr(lens, name).grad
        largest = float(expected.abs().max())
        assert_close(getattr(sparse.sae, name).grad, expected, rtol=0.0, atol=1e-5 * largest)


def test_held_norms_leave_out_only_a_gradient_that_is_projected_out(residuals: Tensor) -> None:
    held = new_sae("topk", d_in=12, d_sae=40, k=5).train()
    free = copy.deepcopy(held)
    free.load_state_dict(free.state_dict() | {"decoder_norm_target": torch.zeros(())})
    assert held.has_constant_decoder_norm
    assert not free.has_constant_decoder_norm
    for model in (held, free):
        effective = model.effective_latents(model.encode(residuals).latents)
        (effective.values.square().sum() + model(residuals).recons.sum()).backward()
    before = free.sae.W_dec.grad.clone()
    assert not torch.allclose(held.sae.W_dec.grad, before)
    for model in (held, free):
        model.remove_parallel_gradient_()
    assert_close(held.sae.W_dec.grad, free.sae.W_dec.grad, rtol=1e-4, atol=1e-4)
    assert_close(held.sae.W_enc.grad, free.sae.W_enc.grad)


def test_unit_rows_stay_unit_and_their_gradient_orthogonal(residuals: Tensor) -> None:
    model = new_sae("topk", d_in=12, d_sae=40, k=5).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    assert model.has_constant_decoder_norm

    for _ in range(3):
        optimizer.zero_grad()
        (model(residuals).recons - residuals).square().sum().backward()
        model.remove_parallel_gradient_()
        along = (model.sae.W_dec.grad * model.sae.W_dec).sum(dim=1).detach()
        assert_close(along, torch.zeros(40), atol=1e-3, rtol=0.0)
        optimizer.step()
        assert (model.decoder_norms().detach() - 1).abs().max() > 1e-4
        model.normalize_decoder_()

    assert_close(model.decoder_norms().detach(), torch.ones(40))


def test_a_common_norm_other_than_one_is_kept(make_lens: Callable[..., Any]) -> None:
    sae = make_lens("standard")
    with torch.no_grad():
        sae.W_dec.mul_(0.1 / sae.W_dec.norm(dim=1, keepdim=True))
    model = SAEModel(sae)
    with torch.no_grad():
        model.sae.W_dec.mul_(torch.rand(40, 1) + 1)

    model.normalize_decoder_()

    assert model.has_constant_decoder_norm
    assert_close(model.decoder_norms().detach(), torch.full((40,), 0.1))
    assert not SAEModel(make_lens("standard")).has_constant_decoder_norm


@pytest.mark.parametrize("is_rescaled", [False, True])
@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka_batchtopk", "jumprelu"])
def test_zero_decoder_rows_survive(
    residuals: Tensor, name: str, is_rescaled: bool, tmp_path: Path
) -> None:
    """A row of norm 0 gives no NaN: in training, and in what is exported and read again."""
    own: dict[str, Any] = {"matryoshka_widths": [10, 40]} if "matryoshka" in name else {}
    if name != "jumprelu":
        own |= {"k": 40, "rescale_acts_by_decoder_norm": is_rescaled}
    model = new_sae(name, d_in=12, d_sae=40, **own)
    with torch.no_grad():
        model.sae.W_dec[3] = 0.0
    output = model.train()(residuals, dead_mask=torch.arange(40) < 6)
    losses = sum(output.losses.values(), torch.zeros(()))
    ((output.recons - residuals).square().sum() + losses).backward()
    if model.has_constant_decoder_norm:
        model.remove_parallel_gradient_()
    model.normalize_decoder_()
    assert model.sae.W_dec[3].norm() == 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert bool(load_sae(path=save_sae(model, tmp_path))(residuals).recons.isfinite().all())


def test_bias_starts_at_the_mean_of_the_data(residuals: Tensor) -> None:
    plain = new_sae("topk", d_in=12, d_sae=40, k=3)
    scaled = new_sae(
        "topk",
        d_in=12,
        d_sae=40,
        k=3,
        normalize_activations="expected_average_only_in",
        input_scale=0.5,
    )
    for model in (plain, scaled):
        model.initialize_bias_(residuals.mean(dim=0))
        nothing = SparseLatents(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.long), 40)
        assert_close(model.decode(nothing)[0].detach(), residuals.mean(dim=0))


class Holder(lightning.LightningModule):
    """Moves its SAE the way Lightning does: past `SAE.to`."""

    def __init__(self, sae: SAEModel) -> None:
        super().__init__()
        self.model = sae


def test_placement_follows_the_weights(
    make_lens: Callable[..., Any], residuals: Tensor, architecture: str
) -> None:
    model = SAEModel(make_lens(architecture))
    Holder(model).to(torch.float64)

    assert (model.sae.dtype, model.sae.cfg.dtype) == (torch.float64, "float64")
    assert model.decode(*model.encode(residuals.double())).dtype == torch.float64
    Holder(model).to("meta")
    assert model.sae.device == torch.device("meta")
    assert model.sae.cfg.device == "meta"


def test_copies_and_pickles_are_independent(
    make_lens: Callable[..., Any], residuals: Tensor, architecture: str
) -> None:
    model = SAEModel(make_lens(architecture, normalize_activations="layer_norm")).eval()
    expected = model(residuals).recons.detach()
    copied = copy.deepcopy(model)
    revived = pickle.loads(pickle.dumps(model))

    with torch.no_grad():
        model.sae.b_dec.add_(1.0)

    assert_close(copied(residuals).recons.detach(), expected)
    assert_close(revived(residuals).recons.detach(), expected)


def test_checkpoint_holds_plain_tensors(
    make_lens: Callable[..., Any], residuals: Tensor, architecture: str
) -> None:
    options = {"normalize_activations": "expected_average_only_in"}
    trained = SAEModel(make_lens(architecture, seed=1, **options), input_scale=0.5).train()
    trained(residuals)
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh = SAEModel(make_lens(architecture, seed=2, **options))

    fresh.load_state_dict(torch.load(file, weights_only=True))

    for name, tensor in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)


def test_wrong_width_is_named(residuals: Tensor) -> None:
    model = new_sae("topk", d_in=13, d_sae=40, k=3)
    with pytest.raises(ValueError, match="`residuals` must have width d_in = 13, got 12"):
        model(residuals)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_input_scale_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="`input_scale` must be positive and finite"):
        new_sae(
            "topk",
            d_in=4,
            d_sae=8,
            k=2,
            normalize_activations="expected_average_only_in",
            input_scale=scale,
        )


def test_input_scale_without_its_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="`input_scale` must be left out unless"):
        new_sae("topk", d_in=4, d_sae=8, k=2, input_scale=0.5)
