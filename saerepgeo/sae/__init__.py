"""Sparse autoencoders: SAELens' parameters with stateless input and sparse gradients."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.sae.io.build import new_sae as new_sae
    from saerepgeo.sae.io.export import save_sae as save_sae
    from saerepgeo.sae.io.load import load_sae as load_sae
    from saerepgeo.sae.model import SAEModel as SAEModel
    from saerepgeo.sae.sae_source import SAESource as SAESource

export_names(__name__)
