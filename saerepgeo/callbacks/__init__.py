"""What happens around training and testing: export, interruption, losses of the language model."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.callbacks.interruption import Interruption
    from saerepgeo.callbacks.lm_loss import LMLoss
    from saerepgeo.callbacks.sae_export import SAEExport

__all__ = ["Interruption", "LMLoss", "SAEExport"]
__getattr__, __dir__ = lazy_names(
    __name__,
    {"Interruption": "interruption", "LMLoss": "lm_loss", "SAEExport": "sae_export"},
)
