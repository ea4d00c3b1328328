"""The frozen language model: its weights, tokenizer and precision, wherever they come from."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.lm.frozen import FrozenLM as FrozenLM
    from saerepgeo.lm.tokenizer import LMTokenizer as LMTokenizer

export_names(__name__)
