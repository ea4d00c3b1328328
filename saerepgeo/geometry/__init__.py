"""Geometry of point clouds and representation matrices as pure functions.

Everything here maps points to a tensor, an `Estimate` or another small tuple; nothing keeps state,
reads files or knows about language models. Points come as dense or torch sparse tensors, as
`SparseLatents` or as a `Cloud`; a label of −1 leaves a point out. The functions run on any device,
work in float64 where precision decides the answer, and need torch, numpy, scipy and scikit-learn
only. The public names are those in the `__all__` of each file:

- `rank`, `unfoldings`: numerical, effective and stable rank, participation ratio; by tensor mode.
- `spsd`: distances between positive semidefinite matrices.
- `sketch`: Frequent Directions, the spectrum of a stream in constant memory.
- `dimension`: intrinsic dimension by nearest neighbors (TwoNN, GRIDE).
- `graphs`: minimum spanning tree, Betti-0, geodesic distances.
- `clusters`: HDBSCAN and the matching of two clusterings.
- `alignment`, `separation`, `silhouettes`, `transport`: shapes, separability and couplings.
- `nulls`, `dictionaries`: what the same statistics give by chance, and under random weights.
- `clouds`: points by coordinates, by few entries or by distances, and their neighbors.
"""

# ruff: noqa: F403

from saerepgeo.geometry.alignment import *
from saerepgeo.geometry.clouds import *
from saerepgeo.geometry.clouds.labeled import *
from saerepgeo.geometry.clusters import *
from saerepgeo.geometry.dictionaries import *
from saerepgeo.geometry.dimension import *
from saerepgeo.geometry.graphs import *
from saerepgeo.geometry.nulls import *
from saerepgeo.geometry.rank import *
from saerepgeo.geometry.separation import *
from saerepgeo.geometry.silhouettes import *
from saerepgeo.geometry.sketch import *
from saerepgeo.geometry.spsd import *
from saerepgeo.geometry.transport import *
from saerepgeo.geometry.unfoldings import *
