"""What happens around training and testing: export, interruption, losses of the language model."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.callbacks.interruption import Interruption as Interruption
    from saerepgeo.callbacks.lm_loss import LMLoss as LMLoss
    from saerepgeo.callbacks.sae_export import SAEExport as SAEExport

export_names(__name__)
