"""Background text as contexts of equal length: BOS and then the next tokens of the running text.

Documents are joined by an empty line and cut without a gap: all positions but the first are text.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saerepgeo.data.text import TextSource
from saerepgeo.files import replacing
from saerepgeo.lm.sources import cache_root
from saerepgeo.lm.tokenizer import LMTokenizer

Split = Literal["train", "heldout", "all"]

DOCUMENT_BREAK = "\n\n"
DOCUMENTS_PER_CALL = 512


def open_contexts(
    text: TextSource,
    tokenizer: LMTokenizer,
    context_size: int,
    split: Split = "all",
    heldout_fraction: float = 0.05,
) -> "Contexts":
    """Return the contexts of `text`: tokenized once to disk if it is finite, else streamed.

    The splits "train" and "heldout" take disjoint documents (every 1/`heldout_fraction`-th is held
    out); "all" takes every document.

    Raises ValueError where `context_size` < 2, or the text is less than one context.
    """
    if context_size < 2:
        raise ValueError(f"`context_size` must be at least 2 (BOS and a token), got {context_size}")
    tokens = _Tokens(text, tokenizer.tokenizer, split, heldout_fraction)
    if not text.is_finite:
        return StreamedContexts(tokens, tokenizer.bos_id, context_size)
    contexts = StoredContexts(tokens.on_disk(), tokenizer.bos_id, context_size)
    if contexts.n_contexts == 0:
        raise ValueError(
            f"the {split} text has {contexts.n_tokens} tokens, less than one context of "
            f"{context_size}; give more text or a smaller `context_size`"
        )
    return contexts


class StoredContexts:
    """Contexts of a file of uint32 tokens, read through a memory map."""

    def __init__(self, path: Path, bos_id: int, context_size: int) -> None:
        self.path, self.bos_id, self.context_size = path, bos_id, context_size
        self.n_tokens = path.stat().st_size // 4
        self.n_contexts = self.n_tokens // (context_size - 1)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return contexts `[context, position]`, int64."""
        shape = self.n_contexts, self.context_size - 1
        stored = np.memmap(self.path, dtype=np.uint32, mode="r", shape=shape)
        return _after_bos(self.bos_id, stored[list(numbers)])


class StreamedContexts:
    """Contexts of a text without known end; reading backwards starts the text again."""

    n_contexts = None

    def __init__(self, tokens: "_Tokens", bos_id: int, context_size: int) -> None:
        self.tokens, self.bos_id, self.context_size = tokens, bos_id, context_size
        self._position, self._stream = 0, self._rows()

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return contexts `[context, position]`, int64."""
        wanted = {}
        for number in sorted(set(numbers)):
            if number < self._position:
                self._stream, self._position = self._rows(), 0
            wanted[number] = next(islice(self._stream, number - self._position, None))
            self._position = number + 1
        return _after_bos(self.bos_id, np.stack([wanted[number] for number in numbers]))

    def _rows(self) -> Iterator[np.ndarray]:
        width, carried = self.context_size - 1, np.empty(0, dtype=np.uint32)
        while True:  # a text that ends after all begins anew
            n_before = carried.size
            for ids in self.tokens:
                carried = np.concatenate([carried, ids])
                n_used = carried.size // width * width
                yield from carried[:n_used].reshape(-1, width)
                carried = carried[n_used:]
            if n_before == carried.size == 0:
                raise ValueError("the streamed text is empty; check the name of the data set")


Contexts = StoredContexts | StreamedContexts
"""Numbered contexts `[position]` of one length, the BOS token first; `n_contexts` is None where the
text is streamed and its end unknown."""


def _after_bos(bos_id: int, rows: np.ndarray) -> Tensor:
    return torch.nn.functional.pad(torch.from_numpy(rows.astype(np.int64)), (1, 0), value=bos_id)


class _Tokens:
    """The tokens of the documents of one split, piece by piece; iterating again starts anew."""

    def __init__(
        self, text: TextSource, tokenizer: Any, split: Split, heldout_fraction: float
    ) -> None:
        if split != "all" and not 0 < heldout_fraction <= 0.5:
            raise ValueError(f"`heldout_text_fraction` must be in (0, 0.5], got {heldout_fraction}")
        self.text, self.tokenizer, self.split = text, tokenizer, split
        self.period = round(1 / heldout_fraction) if split != "all" else 0

    def __iter__(self) -> Iterator[np.ndarray]:
        documents = self._documents()
        while batch := list(islice(documents, DOCUMENTS_PER_CALL)):
            coded = self.tokenizer(
                batch,
                add_special_tokens=False,
                return_attention_mask=False,
                split_special_tokens=True,  # a special token spelled out in a text is only text
                verbose=False,
            )
            yield np.concatenate([np.asarray(ids, dtype=np.uint32) for ids in coded["input_ids"]])

    def _documents(self) -> Iterator[str]:
        for index, document in enumerate(self.text.documents()):
            if self.split == "all" or (index % self.period == 0) == (self.split == "heldout"):
                yield document + DOCUMENT_BREAK

    def on_disk(self) -> Path:
        """Return the file of all tokens, made on first use and named by what it was made of."""
        model = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        made_of = f"{self.text.fingerprint}/{self.split}/{self.period}/{model}/{DOCUMENT_BREAK}"
        name = hashlib.sha256(made_of.encode()).hexdigest()[:32]
        path = cache_root() / "tokens" / f"{name}.uint32"
        if not path.is_file():
            with replacing(path) as scratch, open(scratch, "wb") as file:
                for ids in self:
                    ids.tofile(file)
        return path
