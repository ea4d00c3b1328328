"""The analyses: spaces × metrics, as LightningModules."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.cases.geometry_table import GeometryTable, geometry_table
    from saerepgeo.cases.separability.module import SeparabilityModule
    from saerepgeo.cases.stratification.module import StratificationModule
    from saerepgeo.cases.structure.module import StructureModule

__all__ = [
    "GeometryTable",
    "SeparabilityModule",
    "StratificationModule",
    "StructureModule",
    "geometry_table",
]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GeometryTable": "geometry_table",
        "SeparabilityModule": "separability.module",
        "StratificationModule": "stratification.module",
        "StructureModule": "structure.module",
        "geometry_table": "geometry_table",
    },
)
