"""Concept prompts: the items of a concept, the item a prompt names, the tokens that are filler."""

from saerepgeo.data.prompts.filters import FILTER_COMMON, FILTER_WORDS, token_filter
from saerepgeo.data.prompts.loading import Concept, ConceptPrompts, load_prompts
from saerepgeo.data.prompts.names import file_part

__all__ = [
    "FILTER_COMMON",
    "FILTER_WORDS",
    "Concept",
    "ConceptPrompts",
    "file_part",
    "load_prompts",
    "token_filter",
]
