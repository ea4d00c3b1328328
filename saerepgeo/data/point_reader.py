"""Contexts → points, through the model or out of the disk cache."""

import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from saerepgeo.data import cache
from saerepgeo.lm.frozen import FrozenLM

STREAM_LIMIT = 2**30
"""Bytes of a run's stream up to which `cache_stream: auto` keeps it on disk."""


class PointReader:
    """Contexts → their real points `[point, d_model]`, out of the disk cache where they are there.

    Points have the dtype in which the model multiplies its matrices, kept or not: keeping them
    changes nothing and takes no more room than they are worth. `lm` is called only where points
    are not there; `n_tokens` went through the model so far, in `seconds`.
    """

    def __init__(self, lm: Callable[[], FrozenLM], settings: cache.LMSettings) -> None:
        self.lm, self.settings = lm, settings
        self.n_tokens, self.seconds = 0, 0.0
        self._fingerprint = cache.model_fingerprint(settings.name)

    def read(self, tokens: Tensor, keep: bool) -> Tensor:
        """Return the points of contexts `[context, position]`; keep them on disk if `keep`."""
        if not keep:
            return self._compute(tokens)
        key = cache.tokens_key("background points/1", self._fingerprint, self.settings, tokens)
        return cache.cached_tensors(key, lambda: {"points": self._compute(tokens).cpu()})["points"]

    def _compute(self, tokens: Tensor) -> Tensor:
        lm, start = self.lm(), time.perf_counter()
        points = lm.real_points(tokens).to(lm.autocast_dtype or torch.float32)
        self.seconds += time.perf_counter() - start
        self.n_tokens += tokens.numel()
        return points


def keeps_stream(wanted: bool | Literal["auto"], n_bytes: int | None) -> bool:
    """Return whether a run's points go to the disk cache; `wanted` is `cache_stream`.

    `n_bytes` is what they take, None where the run has no last step.
    Raises ValueError where they are to be kept, and do not fit.
    """
    limit = cache.cache_limit()
    if wanted == "auto":
        return n_bytes is not None and n_bytes <= min(STREAM_LIMIT, limit / 2)
    if wanted and n_bytes is not None and n_bytes > limit:
        raise ValueError(
            f"`cache_stream` would keep {n_bytes / 2**30:.1f} GiB, more than the cache may hold "
            f"({limit / 2**30:g} GiB); set SAEREPGEO_CACHE_GIB, or `cache_stream` to false"
        )
    return bool(wanted)
