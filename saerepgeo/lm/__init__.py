"""The frozen language model: its weights, tokenizer and precision, wherever they come from."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.lm.frozen import FrozenLM
    from saerepgeo.lm.tokenizer import LMTokenizer

__all__ = ["FrozenLM", "LMTokenizer"]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FrozenLM": "frozen",
        "LMTokenizer": "tokenizer",
    },
)
