"""UMAP made fast and repeatable: its neighbors to the last bit, and its eigenvectors seeded.

Of up to 4095 points UMAP measures every pair by one call from Python. Here one compiled loop calls
the same function, each pair of distinct rows once: padding and shared beginnings of prompts are
many equal rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature, unwrap

import numba
import numpy as np
from scipy.sparse import linalg
from umap import layouts, umap_, utils
from umap.distances import euclidean


def _pairs(x: np.ndarray) -> np.ndarray:
    n_points = x.shape[0]
    # UMAP's matrix is of float32, in which further distances are equal
    distances = np.zeros((n_points, n_points), dtype=np.float32)
    for i in range(n_points):
        for j in range(i):
            distances[i, j] = euclidean(x[j], x[i])
            distances[j, i] = distances[i, j]
    return distances


# numba cannot compile what a run-time type checker wraps a function in
_all_pairs = numba.njit(cache=True)(unwrap(_pairs))


def keep_compiled() -> None:
    """Let numba write what it compiles of UMAP's functions to its cache, and read it there."""
    for module in (layouts, umap_, utils):
        for value in vars(module).values():
            if isinstance(value, numba.core.dispatcher.Dispatcher):
                value.enable_caching()


@contextmanager
def seeded_eigenvectors(seed: int) -> Iterator[None]:
    """Give SciPy's ARPACK a generator of its own while UMAP computes its start.

    Where a neighbor graph falls apart ARPACK restarts from random vectors, which since SciPy 1.17
    come from a fresh generator: UMAP with a `random_state` then differs from call to call. Older
    versions of SciPy need nothing.
    """
    plain = linalg.eigsh
    if "rng" in signature(plain).parameters:
        linalg.eigsh = partial(plain, rng=seed)  # for every call anew
    try:
        yield
    finally:
        linalg.eigsh = plain


def neighbors_of_umap(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and distances of the `k` nearest points of each, itself the first of them.

    Ties come in the order in which UMAP's own search puts them.
    """
    x = np.ascontiguousarray(points, dtype=np.float32)
    rows = x.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    distances = _all_pairs(x[first])[np.ix_(inverse, inverse)]
    indices = utils.fast_knn_indices(distances, k)
    return indices, np.take_along_axis(distances, indices, 1)
