"""Sparse autoencoders: SAELens' parameters with stateless input and sparse gradients."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.sae.io.build import new_sae
    from saerepgeo.sae.io.export import save_sae
    from saerepgeo.sae.io.load import load_sae
    from saerepgeo.sae.model import SAEModel
    from saerepgeo.sae.sae_source import SAESource

__all__ = [
    "SAEModel",
    "SAESource",
    "load_sae",
    "new_sae",
    "save_sae",
]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "SAEModel": "model",
        "SAESource": "sae_source",
        "load_sae": "io.load",
        "new_sae": "io.build",
        "save_sae": "io.export",
    },
)
