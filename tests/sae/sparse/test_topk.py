"""The fused TopK step against the same formulas written densely."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.sparse.active_pairs import as_active
from saerepgeo.sae.sparse.encoding import encode_topk
from saerepgeo.sae.sparse.pair_products import decode_pairs, gather_scalars
from saerepgeo.sae.sparse.selection import dense_topk, select_topk

D_IN, D_SAE, K, N = 10, 48, 6, 21


def leaves(dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "inputs": (N, D_IN),
        "weight": (D_IN, D_SAE),
        "bias": (D_SAE,),
        "input_bias": (D_IN,),
        "gain": (D_SAE,),
        "decoder": (D_SAE, D_IN),
    }
    made = {name: torch.randn(s, generator=generator, dtype=dtype) for name, s in shapes.items()}
    made["gain"] = made["gain"].abs() + 0.1
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def naive(t: dict[str, Tensor], k: int, has_gain: bool, has_input_bias: bool) -> Tensor:
    centered = t["inputs"] - t["input_bias"] if has_input_bias else t["inputs"]
    scores = centered @ t["weight"] + t["bias"]
    if has_gain:
        scores = scores * t["gain"]
    values, indices = scores.topk(k, dim=1)
    latents = torch.zeros_like(scores).scatter(1, indices, values.relu())
    # not divided by the gain: it would cancel, and its gradient be zero
    return (latents * t["gain"] if has_gain else latents) @ t["decoder"]


def fused(t: dict[str, Tensor], k: int, has_gain: bool, has_input_bias: bool) -> Tensor:
    latents = encode_topk(
        t["inputs"],
        t["weight"],
        t["bias"],
        k,
        t["input_bias"] if has_input_bias else None,
        t["gain"] if has_gain else None,
    )
    values, _, pairs = as_active(latents)
    if has_gain:
        values = values * gather_scalars(t["gain"], pairs)
    return decode_pairs(values, pairs, t["decoder"])


@pytest.mark.parametrize("has_gain", [False, True])
@pytest.mark.parametrize("has_input_bias", [False, True])
@pytest.mark.parametrize("k", [1, K, D_SAE])
def test_fused_equals_dense_with_every_gradient(
    k: int, has_gain: bool, has_input_bias: bool
) -> None:
    ours, theirs = leaves(), leaves()
    towards = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(5))

    found = fused(ours, k, has_gain, has_input_bias)
    expected = naive(theirs, k, has_gain, has_input_bias)
    (found - towards).square().sum(dim=1).mean().backward()
    (expected - towards).square().sum(dim=1).mean().backward()

    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for name, tensor in ours.items():
        if theirs[name].grad is None:
            assert tensor.grad is None
        else:
            largest = float(theirs[name].grad.abs().max())
            assert_close(tensor.grad, theirs[name].grad, rtol=0.0, atol=1e-5 * largest)


@pytest.mark.slow
def test_gradcheck_in_float64() -> None:
    t = leaves(torch.float64)

    def run(*tensors: Tensor) -> Tensor:
        return fused(dict(zip(t, tensors, strict=True)), K, has_gain=True, has_input_bias=True)

    assert torch.autograd.gradcheck(run, tuple(t.values()), eps=1e-7, atol=1e-5)


def test_gradient_of_the_values_alone() -> None:
    """Losses on latents (the separability term) reach the encoder by the same route."""
    ours, theirs = leaves(), leaves()

    latents = encode_topk(ours["inputs"], ours["weight"], ours["bias"], K)
    latents.to_dense().square().sum().backward()
    scores = theirs["inputs"] @ theirs["weight"] + theirs["bias"]
    scores.topk(K, dim=1).values.relu().square().sum().backward()

    for name in ("inputs", "weight", "bias"):
        assert_close(ours[name].grad, theirs[name].grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [37, 512, 4608, 12288])
@pytest.mark.parametrize("k", [1, 32, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_selection_is_exact(width: int, k: int, dtype: torch.dtype) -> None:
    """Ties (many, in bfloat16) may fall either way; the values may not."""
    scores = torch.randn(300, width, generator=torch.Generator().manual_seed(2)).to(dtype)
    scores[7] = 0.0
    scores[8, :] = -1.0

    values, indices = select_topk(scores, k)

    expected = scores.topk(k, dim=1).values
    assert torch.equal(values.sort(dim=1, descending=True).values, expected)
    assert torch.equal(scores.gather(1, indices), values)
    assert all(len(set(row.tolist())) == k for row in indices)


@pytest.mark.parametrize("enabled", [False, True], ids=["float32", "autocast"])
def test_any_number_of_threads_selects_the_same_bits(enabled: bool) -> None:
    """And torch keeps its number of threads, in threads to come as well."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(16, 512, generator=generator).requires_grad_()
    points, bias = torch.randn(1100, 16, generator=generator), torch.randn(512, generator=generator)
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
                found.append(dense_topk(points, weight, bias, 8))
            with ThreadPoolExecutor(1) as fresh:
                assert fresh.submit(torch.get_num_threads).result() == n_threads
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    for one, several in zip(*found, strict=True):
        assert torch.equal(one, several)
        assert not several.requires_grad


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_not_a_number_is_selected(dtype: torch.dtype, sign: int, is_last: bool) -> None:
    """A broken weight must show in the loss, not lose its latent."""
    scores = torch.randn(40, 4608, generator=torch.Generator().manual_seed(3)).to(dtype)
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    infinity = int(torch.tensor(sign * torch.inf, dtype=dtype).view(bits))
    last = torch.iinfo(bits).max if sign > 0 else -1  # of the bits that are not a number
    scores.view(bits)[3, 5] = last if is_last else infinity + 1

    values, indices = select_topk(scores, 32)

    assert indices[3][values[3].isnan()].tolist() == [5]


def test_autocast_stays_within_bfloat16_of_float32() -> None:
    model = new_sae("topk", d_in=32, d_sae=128, k=8).train()
    low = copy.deepcopy(model)
    points = torch.randn(256, 32, generator=torch.Generator().manual_seed(3))

    def gradient(sae: torch.nn.Module, enabled: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            recons = sae(points).recons
        (recons - points).square().sum(dim=1).mean().backward()
        return recons.detach(), torch.cat([p.grad.flatten() for p in sae.parameters()])

    recons, gradients = gradient(model, False)
    low_recons, low_gradients = gradient(low, True)

    assert low_recons.dtype == torch.float32
    assert all(parameter.grad.dtype == torch.float32 for parameter in low.parameters())
    # a selection at the edge of the k may flip under rounding, so norms are compared, not entries
    assert (recons - low_recons).norm() < 0.1 * recons.norm()
    assert torch.cosine_similarity(gradients, low_gradients, dim=0) > 0.99


@pytest.mark.parametrize("k", [0, D_SAE + 1])
def test_k_out_of_range_is_refused(k: int) -> None:
    t = leaves()
    with pytest.raises(ValueError, match=rf"`k` must lie within 1\.\.d_sae = {D_SAE}, got {k}"):
        encode_topk(t["inputs"], t["weight"], t["bias"], k)


def test_all_negative_and_no_points() -> None:
    """Nothing active decodes to zero with zero gradients; an empty batch passes through."""
    weight, bias = torch.zeros(4, 8, requires_grad=True), torch.full((8,), -1.0)
    decoder = torch.ones(8, 4, requires_grad=True)

    latents = encode_topk(torch.randn(3, 4), weight, bias, 2)
    values, _, pairs = as_active(latents)
    decode_pairs(values, pairs, decoder).sum().backward()
    empty = encode_topk(torch.zeros(0, 4), weight, bias, 2)

    assert torch.equal(latents.to_dense(), torch.zeros(3, 8))
    assert decoder.grad is not None
    assert torch.equal(decoder.grad, torch.zeros(8, 4))
    assert decode_pairs(empty.active.values, empty.active.pairs, decoder).shape == (0, 4)
