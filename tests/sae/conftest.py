"""SAELens SAEs with random weights, the oracle of these tests."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from saerepgeo.sae.io.sae_lens import sae_lens

D_IN, D_SAE = 12, 40
SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 0.7, "l1_warm_up_steps": 10},
    "topk": {"k": 5, "rescale_acts_by_decoder_norm": False},
    "topk_rescaled": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": 5},
    "batchtopk": {"k": 3.5},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [10, 25, 40]},
    "jumprelu": {"l0_coefficient": 0.3, "pre_act_loss_coefficient": 0.2},
    "jumprelu_tanh": {"jumprelu_sparsity_loss_mode": "tanh", "l0_warm_up_steps": 4},
    "gated": {"l1_coefficient": 0.4},
    "matching_pursuit": {"max_iterations": 4, "decoder_init_norm": 1.0},
}
ARCHITECTURES = tuple(SETTINGS)


def lens_sae(name: str, seed: int = 0, **overrides: Any) -> Any:
    """Return a SAELens training SAE whose every parameter is random."""
    sae_lens()
    from sae_lens.registry import get_sae_training_class

    architecture = name.removesuffix("_rescaled").removesuffix("_tanh")
    sae_class, config_class = get_sae_training_class(architecture)
    torch.manual_seed(seed)
    sizes = {"d_in": D_IN, "d_sae": D_SAE}
    sae = sae_class(config_class(**(sizes | SETTINGS[name] | overrides)))
    with torch.no_grad():
        for parameter_name, parameter in sae.named_parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
            if parameter_name == "threshold":
                parameter.abs_()
    return sae


@pytest.fixture
def make_lens() -> Callable[..., Any]:
    """Return the maker of SAELens SAEs."""
    return lens_sae


@pytest.fixture
def residuals() -> torch.Tensor:
    """Return points off the origin, as residual streams are."""
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(24, D_IN, generator=generator) + 0.5


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Return each architecture in turn, with its variants."""
    return str(request.param)
