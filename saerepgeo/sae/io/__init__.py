"""SAEs on disk and in registries: read, made, written."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.sae.io.build import new_sae as new_sae
    from saerepgeo.sae.io.export import save_sae as save_sae
    from saerepgeo.sae.io.load import load_sae as load_sae
    from saerepgeo.sae.io.load import read_config as read_config

export_names(__name__)
