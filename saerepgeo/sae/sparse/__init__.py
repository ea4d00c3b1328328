"""Latents by their active pairs: selected, encoded and decoded without the rest."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.sae.sparse.active_pairs import Pairs
    from saerepgeo.sae.sparse.encoding import encode_sparse
    from saerepgeo.sae.sparse.pair_products import decode_pairs

__all__ = ["Pairs", "decode_pairs", "encode_sparse"]
__getattr__, __dir__ = lazy_names(
    __name__,
    {"Pairs": "active_pairs", "decode_pairs": "pair_products", "encode_sparse": "encoding"},
)
