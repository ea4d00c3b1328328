"""Spectra of masked tensors: NumPy as oracle."""

from inspect import unwrap

import numpy as np
import pytest
import torch

from saerepgeo.geometry import MODES, mode_spectra
from saerepgeo.geometry.unfoldings import MAX_ROWS


def masked_tensor(n_features: int, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A tensor of low rank that is 0 where it is masked and, but for a share, where it is not."""
    generator = torch.Generator().manual_seed(n_features)
    factors = [torch.randn(n, 3, generator=generator) for n in (9, 5, n_features)]
    tensor = torch.einsum("ir,jr,kr->ijk", *factors)
    tensor = tensor * (torch.rand(tensor.shape, generator=generator) < share)
    tensor[..., ::4] = 0
    is_real = torch.rand(9, 5, generator=generator) < 0.7
    return tensor * is_real[..., None], is_real


@pytest.mark.parametrize(("n_features", "share"), [(7, 1.0), (40, 0.5), (600, 0.02)])
def test_spectra_are_those_of_the_unfoldings_of_the_masked_tensor(
    n_features: int, share: float
) -> None:
    tensor, is_real = masked_tensor(n_features, share)
    found = mode_spectra(tensor[is_real], *is_real.nonzero().T)
    for axis, mode in enumerate(MODES):
        unfolded = tensor.movedim(axis, 0).flatten(1)
        expected = np.linalg.svd(unfolded.double().numpy(), compute_uv=False)
        values = found.values[mode].numpy()
        np.testing.assert_allclose(values, expected[: len(values)], atol=1e-6 * expected[0])
        np.testing.assert_allclose(expected[len(values) :], 0, atol=1e-12 * expected[0])
    assert found.n_active == int((tensor != 0).any((0, 1)).sum())


@pytest.mark.parametrize("number", [-1, MAX_ROWS])
def test_numbers_of_rows_out_of_range_are_refused(number: int) -> None:
    good, bad = torch.tensor([0, 1]), torch.tensor([0, number])
    for prompts, positions in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=f"must lie in 0…{MAX_ROWS - 1}"):
            unwrap(mode_spectra)(torch.ones(2, 3), prompts, positions)


def test_no_points_have_empty_spectra() -> None:
    none = torch.zeros(0, dtype=torch.long)
    found = mode_spectra(torch.zeros(0, 3), none, none)
    assert all(len(values) == 0 for values in found.values.values())
    assert found.shapes == {"prompt": (0, 0), "position": (0, 0), "feature": (0, 0)}
    assert (found.n_active, found.n_points) == (0, 0)
