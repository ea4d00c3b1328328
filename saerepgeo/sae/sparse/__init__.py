"""Latents by their active pairs: selected, encoded and decoded without the rest."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.sae.sparse.active_pairs import Pairs as Pairs
    from saerepgeo.sae.sparse.encoding import encode_sparse as encode_sparse
    from saerepgeo.sae.sparse.pair_products import decode_pairs as decode_pairs

export_names(__name__)
