"""How sparse autoencoders reorganise the geometry of a language model's residual stream."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.cases.geometry_table import GeometryTable, geometry_table
    from saerepgeo.cases.separability.module import SeparabilityModule
    from saerepgeo.cases.stratification.module import StratificationModule
    from saerepgeo.cases.structure.module import StructureModule
    from saerepgeo.data.module import ActivationDataModule
    from saerepgeo.data.prompts import load_prompts
    from saerepgeo.lm.frozen import FrozenLM
    from saerepgeo.sae.io.build import new_sae
    from saerepgeo.sae.io.export import save_sae
    from saerepgeo.sae.io.load import load_sae
    from saerepgeo.sae.model import SAEModel
    from saerepgeo.sae.sae_source import SAESource

__version__ = "0.1.0"

__all__ = [
    "ActivationDataModule",
    "FrozenLM",
    "GeometryTable",
    "SAEModel",
    "SAESource",
    "SeparabilityModule",
    "StratificationModule",
    "StructureModule",
    "geometry_table",
    "load_prompts",
    "load_sae",
    "new_sae",
    "save_sae",
]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ActivationDataModule": "data.module",
        "FrozenLM": "lm.frozen",
        "GeometryTable": "cases.geometry_table",
        "SAEModel": "sae.model",
        "SAESource": "sae.sae_source",
        "SeparabilityModule": "cases.separability.module",
        "StratificationModule": "cases.stratification.module",
        "StructureModule": "cases.structure.module",
        "geometry_table": "cases.geometry_table",
        "load_prompts": "data.prompts",
        "load_sae": "sae.io.load",
        "new_sae": "sae.io.build",
        "save_sae": "sae.io.export",
    },
)
