"""Random dictionaries of SAELens architectures: same shape, same sparsity, random directions."""

import pytest
import torch

from saerepgeo.geometry import mean_nearest_cosine, random_dictionary, two_nn
from saerepgeo.sae.io.sae_lens import sae_lens

D_IN, D_SAE = 16, 128
ARCHITECTURES = {
    "standard": {},
    "standard, layer norm": {"normalize_activations": "layer_norm"},
    "standard, b_dec kept": {"apply_b_dec_to_input": False},
    "jumprelu": {},
    "jumprelu, training": {},
    "gated": {},
    "gated, training": {},
    "topk": {"k": 5},
    "topk, b_dec kept": {"k": 5, "apply_b_dec_to_input": False},
    "topk, training": {"k": 5},
    "batchtopk, training": {"k": 5},
    "matryoshka_batchtopk, training": {"k": 5, "matryoshka_widths": [32, 128]},
}


def _residuals(n=300):
    return 3 + torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1))


def _make(name, d_in=D_IN, d_sae=D_SAE, **kwargs):
    sae_lens()
    from sae_lens.registry import get_sae_class, get_sae_training_class

    find = get_sae_training_class if name.endswith("training") else get_sae_class
    sae_class, cfg_class = find(name.split(",")[0])
    return sae_class(cfg_class(d_in=d_in, d_sae=d_sae, **kwargs))


def _sae(name):
    generator = torch.Generator().manual_seed(0)
    sae = _make(name, **ARCHITECTURES[name])
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        sae.b_dec.fill_(3.0)
        if hasattr(sae, "threshold"):
            sae.threshold.fill_(0.2)
    return sae


def _l0(sae):
    with torch.no_grad():
        return (sae.encode(_residuals()) != 0).float().sum(1).mean().item()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_same_shape_and_sparsity(name):
    sae = _sae(name)
    before = {key: value.clone() for key, value in sae.state_dict().items()}
    l0 = _l0(sae)
    random = random_dictionary(sae, _residuals())
    assert type(random) is type(sae)
    assert _l0(random) == pytest.approx(l0, abs=1 / 300 + 1e-6)
    assert 0 < l0 < D_SAE
    torch.testing.assert_close(random.W_dec.norm(dim=1), torch.ones(D_SAE))
    assert torch.equal(random.W_enc, random.W_dec.T)
    assert all(parameter.requires_grad for parameter in random.parameters())
    for key, value in sae.state_dict().items():  # the original is as it was
        assert torch.equal(value, before[key])


def test_seeds():
    sae = _sae("topk")
    one, same, other = (
        random_dictionary(sae, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4)
    )
    assert torch.equal(one.W_dec, same.W_dec)
    assert not torch.equal(one.W_dec, other.W_dec)


def test_rows_are_uniform_on_the_sphere():
    rows = random_dictionary(_sae("topk")).W_dec.detach()
    assert rows.mean(0).abs().max() < 0.1
    covariance = rows.T @ rows / D_SAE
    assert (covariance - torch.eye(D_IN) / D_IN).abs().max() < 0.03


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_points_are_centered_at_the_decoder_bias(name):
    """Opposite points about b_dec have opposite projections, so that hardly any fires twice."""
    random = random_dictionary(_sae(name), _residuals())
    if name == "standard, layer norm":
        random.run_time_activation_norm_fn_in = lambda x: x
    offset = torch.randn(1, D_IN, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        above, below = (random.encode(random.b_dec + sign * offset) for sign in (1, -1))
    assert (above * below).abs().max() < 0.01


def test_the_original_of_a_layer_norm_sae_decodes_as_before():
    """A deep copy of such an SAE would write its means into the original."""
    sae, points = _sae("standard, layer norm"), _residuals()
    random = random_dictionary(sae, points)
    expected = sae.decode(sae.encode(points))
    latents = sae.encode(points)
    random.encode(9 * points + 5)
    torch.testing.assert_close(sae.decode(latents), expected)


def test_a_random_dictionary_raises_the_dimension_of_a_linear_set():
    """Why the baseline is needed: 8 dimensions look like more after an untrained TopK SAE."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(1500, 8, generator=generator) @ torch.randn(8, 64, generator=generator)
    sae = _make("topk", d_in=64, d_sae=512, k=32)
    with torch.no_grad():
        latents = random_dictionary(sae, generator=generator).encode(points)
    assert float(two_nn(points)) == pytest.approx(8, abs=0.6)
    assert float(two_nn(latents)) > 1.3 * float(two_nn(points))


@pytest.mark.parametrize("residuals", [None, torch.zeros(0, D_IN)])
def test_needs_residuals_where_there_is_no_k(residuals):
    with pytest.raises(ValueError, match="`residuals` are needed"):
        random_dictionary(_sae("gated"), residuals)


def test_refuses_residuals_on_which_nothing_is_active():
    sae = _sae("standard")
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
    with pytest.raises(ValueError, match="some latents on and some off"):
        random_dictionary(sae, _residuals())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_residuals_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="`residuals` must be finite"):
        random_dictionary(None, torch.tensor([[value, 1.0]]))


def test_a_jumprelu_dictionary_of_many_active_latents_has_none_below_zero():
    sae = _sae("jumprelu")
    with torch.no_grad():
        sae.b_enc.fill_(1e6)
        sae.b_enc[:9].fill_(-1e6)
    random = random_dictionary(sae, _residuals()).requires_grad_(False)
    assert float(random.threshold.max()) == 0
    assert float(random.encode(_residuals()).min()) == 0


def test_one_latent_of_one_point_is_enough():
    sae = _sae("standard")
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
        sae.b_enc[5] = 1e6
    random = random_dictionary(sae, _residuals(1))
    assert int((random.encode(_residuals(1)) != 0).sum()) == 1


def test_the_default_seed_is_zero():
    sae = _sae("topk")
    zero = random_dictionary(sae, generator=torch.Generator().manual_seed(0))
    assert torch.equal(random_dictionary(sae).W_dec, zero.W_dec)


def test_the_mean_cosine_with_the_nearest_direction():
    rows = torch.randn(70, 12, generator=torch.Generator().manual_seed(2))
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    expected = (unit @ unit.T).fill_diagonal_(-2).amax(1).mean()
    with_zero = torch.cat([rows * torch.logspace(-20, 10, 70)[:, None], torch.zeros(1, 12)])
    found = mean_nearest_cosine(with_zero)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert (found.n_used, found.n_dropped) == (70, 1)
    opposite = torch.tensor([[1.0, 0.0], [-2.0, 0.0]])
    assert float(mean_nearest_cosine(opposite)) == -1
    assert mean_nearest_cosine(opposite[:1]).reason == "1 directions that are not 0, 2 needed"
