"""Case 3 by training: an SAE fine-tuned under a regularizer on separability."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.cases.separability.family import SAEFamilyModule as SAEFamilyModule
    from saerepgeo.cases.separability.module import SeparabilityModule as SeparabilityModule

export_names(__name__)
