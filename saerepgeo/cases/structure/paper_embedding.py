"""The space of the paper's protocol: UMAP of standardized rows.

Step for step, with what is questionable in it: every space is embedded on its own; BOS and padding
are points like any other; latents are standardized, so that a latent active once weighs as much as
one active everywhere.
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
    row to norm 1 (a zero row stays), then UMAP with `UMAP_SETTINGS`. The same `seed` gives the same
    coordinates on the same machine and version of UMAP. ValueError where umap-learn is not
    installed, or there are too few points for 50 components.
    """
    n_least = UMAP_SETTINGS["n_components"] + 2  # of the spectral start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's and UMAP's own, of no consequence here
        try:
            from umap import UMAP

            from saerepgeo.cases.structure import umap_neighbors as ours
        except ImportError as error:
            raise ValueError(
                "the paper protocol of case 2 needs umap-learn; run `pip install saerepgeo[umap]`, "
                "or set `protocols: [sound]`"
            ) from error
        if len(points) < n_least:
            raise ValueError(
                f"the paper protocol needs {n_least} points or more, got {len(points)}"
            )
        from sklearn.preprocessing import StandardScaler, normalize

        rows = normalize(StandardScaler().fit_transform(points.detach().cpu().numpy()))
        ours.keep_compiled()
        known = {}
        if len(rows) < SMALL:
            known["precomputed_knn"] = ours.neighbors_of_umap(rows, UMAP_SETTINGS["n_neighbors"])
        reducer = UMAP(**UMAP_SETTINGS, **known, random_state=seed, n_jobs=1)
        with ours.seeded_eigenvectors(seed):
            embedding = reducer.fit_transform(rows)
    return torch.from_numpy(np.asarray(embedding, dtype=np.float64))
