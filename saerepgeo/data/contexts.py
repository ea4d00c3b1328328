"""Background text as contexts of equal length: BOS and then the next tokens of the running text.

Documents are joined by an empty line and cut without a gap: all positions but the first are text.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saerepgeo.data.cache import activations_folder, cached_tensors
from saerepgeo.data.text import TextSource
from saerepgeo.files import DiskError, written_to
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
    contexts = StoredContexts(tokens.stored(), tokenizer.bos_id, context_size)
    if contexts.n_contexts == 0:
        raise ValueError(
            f"the {split} text has {contexts.n_tokens} tokens, less than one context of "
            f"{context_size}; give more text or a smaller `context_size`"
        )
    return contexts


class StoredContexts:
    """Contexts of a running text of tokens `[token]`, int32."""

    def __init__(self, tokens: Tensor, bos_id: int, context_size: int) -> None:
        self.bos_id, self.context_size, self.n_tokens = bos_id, context_size, len(tokens)
        self.n_contexts = self.n_tokens // (context_size - 1)
        self._rows = tokens[: self.n_contexts * (context_size - 1)].view(-1, context_size - 1)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return contexts `[context, position]`, int64."""
        return _after_bos(self.bos_id, self._rows[list(numbers)])


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
        return _after_bos(self.bos_id, torch.from_numpy(np.stack([wanted[n] for n in numbers])))

    def _rows(self) -> Iterator[np.ndarray]:
        width, carried = self.context_size - 1, np.empty(0, dtype=np.int32)
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


def _after_bos(bos_id: int, rows: Tensor) -> Tensor:
    return torch.nn.functional.pad(rows.long(), (1, 0), value=bos_id)


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
            yield np.concatenate([np.asarray(ids, dtype=np.int32) for ids in coded["input_ids"]])

    def _documents(self) -> Iterator[str]:
        for index, document in enumerate(self.text.documents()):
            if self.split == "all" or (index % self.period == 0) == (self.split == "heldout"):
                yield document + DOCUMENT_BREAK

    def stored(self) -> Tensor:
        """Return all tokens `[token]`, from the disk cache where they are there."""
        key = {
            "kind": "tokens/1",
            "text": self.text.fingerprint,
            "split": [self.split, self.period],
            "tokenizer": hashlib.sha256(
                self.tokenizer.backend_tokenizer.to_str().encode()
            ).hexdigest(),
            "between": DOCUMENT_BREAK,
        }
        return cached_tensors(key, lambda: {"tokens": self._gathered()})["tokens"]

    def _gathered(self) -> Tensor:
        """Return all tokens; in a file where there is room, for a text may exceed the memory."""
        folder = activations_folder()
        try:
            with written_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as file:
                    for ids in self:
                        file.write(ids.tobytes())
                    file.flush()
                    if file.tell():
                        return torch.from_numpy(np.memmap(file, np.int32, "c"))
        except DiskError:  # what cannot be kept is held in the memory
            pass
        return torch.from_numpy(np.concatenate([np.empty(0, np.int32), *self]))
