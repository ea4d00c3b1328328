"""The analyses: spaces × metrics, as LightningModules."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.cases.geometry_tables import GeometryTable as GeometryTable
    from saerepgeo.cases.geometry_tables import geometry_table as geometry_table
    from saerepgeo.cases.separability.family import SAEFamilyModule as SAEFamilyModule
    from saerepgeo.cases.separability.module import SeparabilityModule as SeparabilityModule
    from saerepgeo.cases.stratification.module import StratificationModule as StratificationModule
    from saerepgeo.cases.structure.module import StructureModule as StructureModule

export_names(__name__)
