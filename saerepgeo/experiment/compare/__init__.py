"""Many SAEs beside each other: figures per SAE, and across them."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.experiment.compare.command import main as main
    from saerepgeo.experiment.compare.settings import Comparison as Comparison

export_names(__name__)
