"""Background text as contexts of equal length: BOS and then the next tokens of the running text.

Documents are joined by an empty line and cut into contexts without a gap, so that every position
but the first is real text.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saerepgeo.data.text import TextSource, open_text
from saerepgeo.files import replacing
from saerepgeo.lm.sources import cache_root
from saerepgeo.lm.tokenizer import LMTokenizer

Split = Literal["train", "heldout", "all"]

DOCUMENT_BREAK = "\n\n"
DOCUMENTS_PER_CALL = 512


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

    def train(self) -> "Contexts":
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

    def _open(self, source: str | Sequence[str], split: Split) -> "Contexts":
        tokenizer, size = self.tokenizer(), self.context_size
        return open_contexts(open_text(source), tokenizer, size, split, self.heldout_fraction)


def open_contexts(
    text: TextSource,
    tokenizer: LMTokenizer,
    context_size: int,
    split: Split = "all",
    heldout_fraction: float = 0.05,
) -> "Contexts":
    """Return the contexts of `text`: tokenized once to disk if it is finite, else streamed.

    Args:
        split: "train" or "heldout" take disjoint documents (every 1/`heldout_fraction`-th document
            is held out); "all" takes every document.

    Raises:
        ValueError: `context_size` < 2, or less text than one context.
    """
    if context_size < 2:
        raise ValueError(f"`context_size` must be at least 2 (BOS and a token), got {context_size}")
    documents = _Documents(text, split, heldout_fraction)
    if not text.is_finite:
        return StreamedContexts(documents, tokenizer, context_size)
    tokens = _token_file(documents, tokenizer.tokenizer)
    contexts = StoredContexts(tokens, tokenizer.bos_id, context_size)
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
        width = self.context_size - 1
        stored = np.memmap(self.path, dtype=np.uint32, mode="r")
        out = torch.full((len(numbers), self.context_size), self.bos_id)
        for row, number in enumerate(numbers):
            chunk = stored[number * width : (number + 1) * width]
            out[row, 1:] = torch.from_numpy(chunk.astype(np.int64))
        return out


class StreamedContexts:
    """Contexts of a text without known end; reading backwards starts the text again."""

    n_contexts = None

    def __init__(self, documents: "_Documents", tokenizer: LMTokenizer, context_size: int) -> None:
        self.documents, self.tokenizer = documents, tokenizer
        self.context_size = context_size
        self._position = 0
        self._stream: Iterator[Tensor] | None = None

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return contexts `[context, position]`, int64."""
        wanted = {}
        for number in sorted(set(numbers)):
            if self._stream is None or number < self._position:
                self._stream, self._position = self._contexts(), 0
            wanted[number] = next(islice(self._stream, number - self._position, None))
            self._position = number + 1
        return torch.stack([wanted[number] for number in numbers])

    def _contexts(self) -> Iterator[Tensor]:
        width, carried = self.context_size - 1, np.empty(0, dtype=np.uint32)
        while True:  # a text that ends after all begins anew
            n_before = carried.size
            for ids in _tokenized(self.documents, self.tokenizer.tokenizer):
                carried = np.concatenate([carried, ids])
                n_whole = carried.size // width
                for row in carried[: n_whole * width].reshape(n_whole, width):
                    bos = torch.tensor([self.tokenizer.bos_id])
                    yield torch.cat([bos, torch.from_numpy(row.astype(np.int64))])
                carried = carried[n_whole * width :]
            if n_before == carried.size == 0:
                raise ValueError("the streamed text is empty; check the name of the data set")


Contexts = StoredContexts | StreamedContexts
"""Numbered contexts `[position]` of one length, the BOS token first; `n_contexts` is None where the
text is streamed and its end unknown."""


class _Documents:
    """The documents of one split; iterating again starts at the first."""

    def __init__(self, text: TextSource, split: Split, heldout_fraction: float) -> None:
        if split != "all" and not 0 < heldout_fraction <= 0.5:
            raise ValueError(f"`heldout_text_fraction` must be in (0, 0.5], got {heldout_fraction}")
        self.text, self.split = text, split
        self.period = round(1 / heldout_fraction) if split != "all" else 0

    def __iter__(self) -> Iterator[str]:
        for index, document in enumerate(self.text.documents()):
            if self.split == "all" or (index % self.period == 0) == (self.split == "heldout"):
                yield document


def _tokenized(documents: _Documents, tokenizer: Any) -> Iterator[np.ndarray]:
    stream = iter(documents)
    while batch := list(islice(stream, DOCUMENTS_PER_CALL)):
        coded = tokenizer(
            [document + DOCUMENT_BREAK for document in batch],
            add_special_tokens=False,
            return_attention_mask=False,
            split_special_tokens=True,  # a special token spelled out in a text is only text
            verbose=False,
        )
        yield np.concatenate([np.asarray(ids, dtype=np.uint32) for ids in coded["input_ids"]])


def _token_file(documents: _Documents, tokenizer: Any) -> Path:
    """Return the file of all tokens, made on first use and named by what it was made of."""
    model = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    split = f"{documents.text.fingerprint}/{documents.split}/{documents.period}"
    key = hashlib.sha256(f"{split}/{model}/{DOCUMENT_BREAK}".encode()).hexdigest()
    path = cache_root() / "tokens" / f"{key[:32]}.uint32"
    if path.is_file():
        return path
    with replacing(path) as scratch, open(scratch, "wb") as file:
        for ids in _tokenized(documents, tokenizer):
            ids.tofile(file)
    return path
