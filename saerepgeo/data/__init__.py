"""Prompts and text to batches of residuals: streams, concepts, and what is kept on disk."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.data.module import ActivationDataModule
    from saerepgeo.data.prompts import ConceptPrompts, load_prompts

__all__ = ["ActivationDataModule", "ConceptPrompts", "load_prompts"]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ActivationDataModule": "module",
        "ConceptPrompts": "prompts",
        "load_prompts": "prompts",
    },
)
