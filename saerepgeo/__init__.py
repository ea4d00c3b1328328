"""How sparse autoencoders reorganise the geometry of a language model's residual stream."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saerepgeo.data import ActivationDataModule
    from saerepgeo.lm import FrozenLM
    from saerepgeo.modules.separability import SeparabilityModule
    from saerepgeo.modules.stratification import StratificationModule
    from saerepgeo.modules.structure import StructureModule
    from saerepgeo.prompts import load_prompts
    from saerepgeo.sae.export import save_sae
    from saerepgeo.sae.load import load_sae, new_sae
    from saerepgeo.sae.model import SAEModel
    from saerepgeo.sae.source import SAESource
    from saerepgeo.table import GeometryTable, geometry_table

__version__ = "0.1.0"

_HOMES = {
    "ActivationDataModule": "data",
    "FrozenLM": "lm",
    "GeometryTable": "table",
    "SAEModel": "sae.model",
    "SAESource": "sae.source",
    "SeparabilityModule": "modules.separability",
    "StratificationModule": "modules.stratification",
    "StructureModule": "modules.structure",
    "geometry_table": "table",
    "load_prompts": "prompts",
    "load_sae": "sae.load",
    "new_sae": "sae.load",
    "save_sae": "sae.export",
}
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


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: importing the package itself stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
