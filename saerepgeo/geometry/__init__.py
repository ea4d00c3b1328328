"""Geometry of point clouds and representation matrices as pure functions.

Everything here maps tensors to a tensor, an `Estimate` or another small tuple; nothing keeps state,
reads files or knows about language models. The functions run on any device, work in float64 where
precision decides the answer, and need torch, numpy, scipy and scikit-learn only.

- `rank`: unfoldings, numerical, effective and stable rank, participation ratio.
- `spsd`: distances between positive semidefinite matrices.
- `sketch`: Frequent Directions, the spectrum of a stream in constant memory.
- `dimension`: intrinsic dimension by nearest neighbours (TwoNN, GRIDE).
- `graphs`: minimum spanning tree, Betti-0, geodesic distances.
- `clusters`: HDBSCAN and the matching of two clusterings.
- `alignment`, `separation`, `transport`: shapes, separability and couplings of centroids.
- `nulls`: what the same statistics give by chance.
"""

__all__: list[str] = []
