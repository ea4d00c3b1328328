"""Which (point, latent) pairs are active: the largest scores, or those above a threshold.

Found a few points at a time, so that the dense pre-activations are never kept.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from saerepgeo.sae.sparse.active_pairs import Encoder, Pairs, PerLatent, PerPair, Points
from saerepgeo.sae.sparse.threads import map_in_threads
from saerepgeo.types import Float, Int

Bound = Float[Tensor, "*d_sae"]
Flat = tuple[Tensor, Tensor]
Scores = Float[Tensor, "row d_sae"]
TopK = tuple[Float[Tensor, "point k"], Int[Tensor, "point k"]]

_ROWS = 512  # points whose scores are held at once on the CPU, where they stay in cache
_PROBED_ROWS = 128  # points from which the threshold of a batch is guessed
_GUESSES = (1.3, 3.0, 1e9)  # how many times the pairs needed a guessed threshold aims at
_SLACK = 8  # and how many more of the sample
_GROUP = 8  # columns per group of the selection by row; a power of two


def score_chunks(centered: Points, weight: Encoder, bias: PerLatent) -> Iterator[Scores]:
    """Yield centered @ weight + bias of a few points at a time, all at once on CUDA.

    In the autocast dtype where there is one. Whatever reads a chunk finds it still in cache.
    """
    chunks, score = _scoring(centered, weight, bias)
    return map(score, chunks)


def _scoring(
    centered: Points, weight: Encoder, bias: PerLatent
) -> tuple[Sequence[Tensor], Callable[[Tensor], Scores]]:
    """Return chunks of points, and what gives the scores of one."""
    device = weight.device.type
    is_low = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_low else weight.dtype
    centered, columns, bias = centered.to(dtype), weight.to(dtype).t(), bias.to(dtype)
    n_rows = _ROWS if device == "cpu" else max(centered.shape[0], 1)

    def score(rows: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            return functional.linear(rows, columns, bias)

    return centered.split(n_rows), score


def select_topk(scores: Float[Tensor, "point d_sae"], k: int) -> TopK:
    """Return the k largest scores of every point and where they are, in no order.

    On the CPU wide rows are first reduced to the maxima of groups of eight columns: at least k
    scores reach the k-th largest maximum, and few more do; the slow selection sees those alone.
    Exact; among equal scores either may be taken.

    >>> values, indices = select_topk(torch.tensor([[1.0, 5.0, 3.0]]), 2)
    >>> sorted(values[0].tolist()), sorted(indices[0].tolist())
    ([3.0, 5.0], [1, 2])
    """
    d_sae, found = scores.shape[1], None
    if scores.device.type == "cpu" and d_sae % _GROUP == 0 and d_sae // _GROUP >= 4 * k:
        found = _select_by_groups(scores, k)
    return found or scores.topk(k, dim=1, sorted=False)


def _select_by_groups(scores: Tensor, k: int) -> TopK | None:
    """Return the k largest of every row, or None where the maxima of groups tell too little."""
    n_points, d_sae = scores.shape
    # NumPy's partition and comparisons are vectorised, torch's are not. The bits of 16-bit floats
    # are ordered as the floats are, except below zero.
    keys = (scores.view(torch.int16) if scores.element_size() == 2 else scores).detach().numpy()
    if scores.element_size() == 2 and _has_negative_nan(scores):
        return None
    n_groups = d_sae // _GROUP
    maxima = keys.reshape(n_points, _GROUP, n_groups).max(axis=1)
    kth = n_groups - k
    least = np.partition(maxima, kth, axis=1)[:, kth, None]
    if not (least >= 0).all():  # too few positive scores, or not a number
        return None
    rows, groups = np.divmod(np.flatnonzero(~(maxima < least)), n_groups)
    members = (rows * d_sae + groups)[:, None] + np.arange(0, d_sae, n_groups)
    kept = ~(keys.reshape(-1)[members] < least[rows])  # keeps what is not a number
    flat = members.reshape(-1)[np.flatnonzero(kept)]
    offsets = np.searchsorted(flat // d_sae, np.arange(n_points + 1))
    width = int(np.diff(offsets).max(initial=k))
    if width > 4 * k:  # many equal scores
        return None
    # k to `width` candidates a row; what is read past a row's end does not count
    places = torch.from_numpy(np.minimum(offsets[:-1, None] + np.arange(width), len(flat) - 1))
    candidates = torch.from_numpy(flat)[places] if len(flat) else places
    is_own = torch.from_numpy(np.arange(width) < np.diff(offsets)[:, None])
    values = scores.reshape(-1)[candidates].where(is_own, -torch.inf)
    values, picked = values.topk(k, dim=1, sorted=False)
    return values, candidates.gather(1, picked) % d_sae


def dense_topk(inputs: Points, weight: Encoder, bias: PerLatent, k: int) -> TopK:
    """Return the k largest of inputs @ weight + bias of every point, in the dtype of the scores.

    On the CPU every thread scores and selects chunks of its own. Without gradient.
    """
    chunks, score = _scoring(inputs, weight, bias)
    parts = map_in_threads(lambda rows: select_topk(score(rows), k), chunks)
    values, indices = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(indices)


def select_above(
    centered: Points, weight: Encoder, bias: PerLatent, low: Bound, max_share: float
) -> tuple[PerPair, Pairs] | None:
    """Return the scores above `low` (one for all latents or one for each), and their pairs.

    None as soon as more than `max_share` of the scores seen are above. Where the scores are of
    lower precision than `low`, some at the bound may be returned that are not above it.
    """
    found = _flat_above(score_chunks(centered, weight, bias), low, max_share)
    return None if found is None else _as_pairs(*found, len(centered), weight.shape[1])


def select_batch_topk(
    centered: Points, weight: Encoder, bias: PerLatent, n_kept: int, max_share: float
) -> tuple[PerPair, Pairs] | None:
    """Return the `n_kept` largest positive scores of the whole batch, and their pairs.

    A threshold is guessed from a sample of the points; what passes it, a little more than needed,
    is selected from exactly. All positive scores are returned where there are fewer. Among equal
    scores the first are taken. None where more than `max_share` of the scores are wanted.
    """
    n_points, d_sae = centered.shape[0], weight.shape[1]
    if n_kept > max_share * n_points * d_sae:
        return None
    sample = centered[:: max(1, n_points // _PROBED_ROWS)]
    probe = torch.cat(list(score_chunks(sample, weight, bias))).flatten().relu_()
    for guess in _GUESSES:
        n_above = math.ceil(guess * n_kept * len(sample) / max(n_points, 1)) + _SLACK
        reaches = n_above < len(probe)
        low = probe.topk(n_above, sorted=False).values.min() if reaches else bias.new_zeros(())
        found = _flat_above(score_chunks(centered, weight, bias), low, 4 * max_share)
        if found is not None and (len(found[0]) >= n_kept or not low > 0):
            return _as_pairs(*_largest(*found, n_kept), n_points, d_sae)
    return None


def _flat_above(chunks: Iterator[Tensor], low: Tensor, max_share: float) -> Flat | None:
    """Return the scores above `low` and their positions in the flattened scores, ascending."""
    values, positions, n_found, n_seen = [], [], 0, 0
    for scores in chunks:
        bound, eps = low, torch.finfo(scores.dtype).eps
        if eps > torch.finfo(low.dtype).eps:
            bound = low - low.abs() * eps  # rounded down
        allowed = math.floor(max_share * (n_seen + scores.numel())) - n_found
        flat = _positions_above(scores, bound.to(scores.dtype) + 0.0, allowed)  # −0 becomes 0
        if flat is None:
            return None
        values.append(scores.view(-1)[flat])
        positions.append(flat + n_seen)
        n_found, n_seen = n_found + len(flat), n_seen + scores.numel()
    return torch.cat(values), torch.cat(positions)


def _positions_above(scores: Tensor, low: Tensor, allowed: int) -> Tensor | None:
    """Return where scores > low in the flattened scores, or None for more than `allowed`."""
    if scores.device.type != "cpu":
        flat = (~(scores <= low)).view(-1).nonzero().squeeze(1)  # true of what is not a number
        return flat if len(flat) <= allowed else None
    # NumPy compares and lists positions 5–10 times faster than torch in one thread
    if scores.element_size() == 2:
        mask = _ordered_bits(scores, low) > _ordered_bits(low, low)
        if _has_negative_nan(scores):
            mask |= scores.isnan().numpy()
    else:
        mask = ~(scores.numpy() <= low.numpy())
    return None if np.count_nonzero(mask) > allowed else torch.from_numpy(np.flatnonzero(mask))


def _ordered_bits(values: Tensor, low: Tensor) -> np.ndarray:
    """Return 16-bit floats as integers whose order above `low` is that of the floats.

    Positive floats are ordered as their bits are, and above all negative ones; only a negative
    `low` needs the order among the negatives, which runs the other way.
    """
    bits: np.ndarray = values.view(torch.int16).numpy()
    return bits ^ ((bits >> 15) & np.int16(0x7FFF)) if bool((low < 0).any()) else bits


def _has_negative_nan(scores: Tensor) -> bool:
    """Return whether a 16-bit float is not a number and its bits order below those of all others.

    Processors give that sign; not a number of the other sign is above all others, where it is seen.
    """
    infinity = 0xFF80 if scores.dtype == torch.bfloat16 else 0xFC00
    bits: np.ndarray = scores.detach().view(torch.int16).numpy()
    return bits.size > 0 and int(bits.view(np.uint16).max()) > infinity


def _largest(scores: Tensor, flat: Tensor, n_kept: int) -> Flat:
    if len(scores) <= n_kept or n_kept == 0:
        return scores[:n_kept], flat[:n_kept]
    least = scores.topk(n_kept, sorted=False).values.min()
    keep = scores > least
    ties = (scores == least).nonzero().squeeze(1)
    keep[ties[: n_kept - int(keep.sum())]] = True
    return scores[keep], flat[keep]


def _as_pairs(scores: Tensor, flat: Tensor, n_points: int, d_sae: int) -> tuple[Tensor, Pairs]:
    starts = torch.arange(n_points + 1, device=flat.device) * d_sae
    return scores, Pairs(flat % d_sae, torch.searchsorted(flat, starts), d_sae)
