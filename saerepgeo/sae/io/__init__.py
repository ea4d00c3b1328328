"""SAEs on disk and in registries: read, made, written."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.sae.io.build import new_sae
    from saerepgeo.sae.io.export import save_sae
    from saerepgeo.sae.io.load import load_sae, read_config

__all__ = ["load_sae", "new_sae", "read_config", "save_sae"]
__getattr__, __dir__ = lazy_names(
    __name__, {"load_sae": "load", "new_sae": "build", "read_config": "load", "save_sae": "export"}
)
