"""Concept prompts: the items of a concept, the item a prompt names, the tokens that are filler."""

from saerepgeo.data.prompts.filters import FILTER_COMMON, FILTER_WORDS, token_filter
from saerepgeo.data.prompts.loading import Concept, ConceptPrompts, load_prompts

__all__ = [
    "FILTER_COMMON",
    "FILTER_WORDS",
    "Concept",
    "ConceptPrompts",
    "load_prompts",
    "token_filter",
]
