"""Background text by its parts: what is trained on, and what is held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from saerepgeo.data.contexts import Contexts, Split, open_contexts
from saerepgeo.data.text import open_text
from saerepgeo.lm.tokenizer import LMTokenizer

__all__ = ["BackgroundText"]


@dataclass(frozen=True)
class BackgroundText:
    """Contexts of the training text, and of held-out text.

    Held out is every 1/`heldout_fraction`-th document of `source`, or all of `heldout_source`.
    """

    source: str | Sequence[str]
    heldout_source: str | Sequence[str] | None
    heldout_fraction: float
    context_size: int
    tokenizer: Callable[[], LMTokenizer]
    """Called when the text is first needed."""

    def train(self) -> Contexts:
        """Return the contexts to train on."""
        return self._open(self.source, "train" if self.heldout_source is None else "all")

    def heldout(self, n_contexts: int) -> Tensor:
        """Return tokens `[context, position]` of held-out text, as many contexts as there are."""
        if self.heldout_source is None:
            contexts = self._open(self.source, "heldout")
        else:
            contexts = self._open(self.heldout_source, "all")
        available = contexts.n_contexts
        return contexts.read(range(n_contexts if available is None else min(n_contexts, available)))

    def _open(self, source: str | Sequence[str], split: Split) -> Contexts:
        tokenizer = self.tokenizer()
        fraction = self.heldout_fraction
        return open_contexts(open_text(source), tokenizer, self.context_size, split, fraction)
