"""Prompts and text to batches of residuals: streams, concepts, and what is kept on disk."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.data.module import ActivationDataModule as ActivationDataModule
    from saerepgeo.data.prompts import ConceptPrompts as ConceptPrompts
    from saerepgeo.data.prompts import load_prompts as load_prompts

export_names(__name__)
