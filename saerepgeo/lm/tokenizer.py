"""LMTokenizer: text ↔ tokens of a language model, its special tokens, without its weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saerepgeo.lm.sources import load_tokenizer
from saerepgeo.types import Bool, Int


class LMTokenizer:
    """The tokenizer of a language model (`transformers`), with BOS first in every prompt.

    `bos_id` begins every context: BOS, else EOS, else padding. `special_ids` are never real text.
    Raises ValueError on a slow tokenizer, or one without any of BOS, EOS and padding.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                "expected a fast tokenizer (tokenizer.json), got a slow one; convert it"
            )
        first = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        known = [int(token_id) for token_id in first if token_id is not None]
        if not known:
            raise ValueError("expected a tokenizer with a BOS, EOS or padding token, got none")
        self.tokenizer, self.bos_id = tokenizer, known[0]
        self.special_ids = torch.tensor(sorted(set(tokenizer.all_special_ids)))

    @classmethod
    def load(cls, name: str) -> "LMTokenizer":
        """Load the tokenizer of the model `name`, as `FrozenLM.load` names it."""
        return cls(load_tokenizer(name))

    def check_fits(self, name: str, n_embeddings: int) -> None:
        """Refuse a tokenizer that makes text into tokens beyond the embeddings of model `name`.

        Special tokens may lie beyond them: text never becomes one.
        """
        added = self.tokenizer.added_tokens_decoder
        made = {i for i in self.tokenizer.get_vocab().values() if i not in added}
        made |= {self.bos_id, self._padding_id} | {i for i, t in added.items() if not t.special}
        if (largest := max(made)) >= n_embeddings:
            raise ValueError(
                f"the tokenizer of model `{name}` makes tokens up to {largest}, its weights have "
                f"embeddings for {n_embeddings}; take both from the same place"
            )

    def is_real(self, tokens: Int[Tensor, "prompt position"]) -> Bool[Tensor, "prompt position"]:
        """Return where `tokens` are neither special tokens nor padding."""
        return ~torch.isin(tokens, self.special_ids.to(tokens.device))

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, list[list[tuple[int, int]]]]:
        """Return tokens `[prompt, position]`, BOS first and padded on the right, and char spans.

        The spans of a text name, for each position, the characters that its token stands for;
        BOS has the empty span (0, 0). Special tokens spelled out in a text are read as text.
        """
        coded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
        )
        width = max((len(ids) for ids in coded["input_ids"]), default=0)
        padding = [self._padding_id] * width
        rows = [[self.bos_id, *ids, *padding[len(ids) :]] for ids in coded["input_ids"]]
        tokens = torch.tensor(rows, dtype=torch.long).reshape(-1, 1 + width)
        return tokens, [[(0, 0), *map(tuple, offsets)] for offsets in coded["offset_mapping"]]

    @property
    def _padding_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.bos_id if pad is None else int(pad)
