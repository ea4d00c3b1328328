"""How sparse autoencoders reorganise the geometry of a language model's residual stream."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.cases.geometry_tables import GeometryTable as GeometryTable
    from saerepgeo.cases.geometry_tables import geometry_table as geometry_table
    from saerepgeo.cases.separability.family import SAEFamilyModule as SAEFamilyModule
    from saerepgeo.cases.separability.module import SeparabilityModule as SeparabilityModule
    from saerepgeo.cases.stratification.module import StratificationModule as StratificationModule
    from saerepgeo.cases.structure.module import StructureModule as StructureModule
    from saerepgeo.data.module import ActivationDataModule as ActivationDataModule
    from saerepgeo.data.prompts import load_prompts as load_prompts
    from saerepgeo.lm.frozen import FrozenLM as FrozenLM
    from saerepgeo.sae.io.build import new_sae as new_sae
    from saerepgeo.sae.io.export import save_sae as save_sae
    from saerepgeo.sae.io.load import load_sae as load_sae
    from saerepgeo.sae.model import SAEModel as SAEModel
    from saerepgeo.sae.sae_source import SAESource as SAESource

__version__ = "0.1.0"

export_names(__name__)
