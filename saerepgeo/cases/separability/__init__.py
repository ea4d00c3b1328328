"""Case 3 by training: an SAE fine-tuned under a regularizer on separability."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.cases.separability.module import SeparabilityModule

__all__ = ["SeparabilityModule"]
__getattr__, __dir__ = lazy_names(__name__, {"SeparabilityModule": "module"})
