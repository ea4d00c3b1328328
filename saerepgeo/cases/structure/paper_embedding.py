"""The space of the paper's protocol: UMAP of standardized rows.

Step for step, with what is questionable in it: the space of all figures is a UMAP embedding, each
space on its own; BOS and padding are points like any other; latents are standardized, so that a
latent active once weighs as much as one active everywhere. The `sound` protocol asks the same
without.
"""

import warnings
from typing import Any

import numpy as np
import torch

from saerepgeo.types import Float

UMAP_SETTINGS: dict[str, Any] = {
    "n_components": 50,
    "n_neighbors": 15,
    "min_dist": 0.1,
    "metric": "euclidean",
}
UMAP_SEED = 42
SMALL = 4096
"""Points from which on UMAP looks for neighbors by an approximate search of its own."""


def paper_embedding(
    points: Float[torch.Tensor, "point dim"], seed: int = UMAP_SEED
) -> Float[torch.Tensor, "point component"]:
    """Return UMAP's 50 coordinates of standardized points of unit norm.

    Every feature to mean 0 and standard deviation 1 over the points (a constant one to 0), every
    row to norm 1 (a zero row stays), then UMAP with 15 neighbors and `min_dist` 0.1. The same
    `seed` gives the same coordinates on the same machine and version of UMAP.

    Raises:
        ValueError: umap-learn is not installed, or there are too few points for 50 components.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from umap import UMAP

            from saerepgeo.cases.structure.umap_neighbors import (
                keep_compiled,
                neighbors_of_umap,
                seeded_eigenvectors,
            )
    except ImportError as error:
        raise ValueError(
            "the paper protocol of case 2 needs umap-learn; run `pip install saerepgeo[umap]`, "
            "or set `protocols: [sound]`"
        ) from error
    from sklearn.preprocessing import StandardScaler, normalize

    n_least = UMAP_SETTINGS["n_components"] + 2  # of the spectral start
    if len(points) < n_least:
        raise ValueError(f"the paper protocol needs {n_least} points or more, got {len(points)}")
    rows = normalize(StandardScaler().fit_transform(points.detach().cpu().numpy()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's and UMAP's own, of no consequence here
        keep_compiled()
        known = {}
        if len(rows) < SMALL:
            known["precomputed_knn"] = neighbors_of_umap(rows, UMAP_SETTINGS["n_neighbors"])
        reducer = UMAP(**UMAP_SETTINGS, **known, random_state=seed, n_jobs=1)
        with seeded_eigenvectors(seed):
            embedding = reducer.fit_transform(rows)
    return torch.from_numpy(np.asarray(embedding, dtype=np.float64))
