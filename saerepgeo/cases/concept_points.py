"""The points of a concept that are points of their own, and what each has seen."""

from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.types import Bool, ConceptActivations, Int

__all__ = ["ConceptCloud", "concept_cloud"]


class ConceptCloud(NamedTuple):
    """Real positions of a concept, each causal prefix once."""

    rows: Int[Tensor, "point"]
    """Among the real positions in order of prompts."""
    prompts: Int[Tensor, "point"]
    labels: Int[Tensor, "point"]
    """Item that has been named by this position; −1 before the mention."""
    is_mention: Bool[Tensor, "point"]
    """Last token of its prompt's item: where the item itself is represented."""
    n_merged: int
    """Positions left out, since another prompt begins with the same tokens."""

    def within(self, is_real: Bool[Tensor, "prompt position"]) -> Bool[Tensor, "prompt position"]:
        """Return which positions are these points, of the `is_real` that they were found among."""
        chosen = torch.zeros_like(is_real)
        prompts, positions = is_real.nonzero()[self.rows.to(is_real.device)].T
        chosen[prompts, positions] = True
        return chosen


def concept_cloud(batch: ConceptActivations) -> ConceptCloud:
    """Return which real positions are points of their own, and which item each has seen.

    A causal model gives the same residual wherever the tokens up to a position are the same: such
    positions are one point, the first. A position before the last token of the item's mention knows
    nothing of the item and has label −1.
    """
    seen: set[tuple[int, ...]] = set()
    kept: list[int] = []
    places = batch.is_real.nonzero().tolist()
    for row, (prompt, position) in enumerate(places):
        prefix = tuple(batch.tokens[prompt, : position + 1].tolist())
        if prefix not in seen:
            seen.add(prefix)
            kept.append(row)
    rows = torch.tensor(kept, dtype=torch.long)
    prompts, positions = batch.is_real.nonzero().cpu()[rows].T
    knows = positions >= batch.item_positions.cpu()[prompts]
    labels = torch.where(knows, batch.labels.cpu()[prompts], -1)
    is_mention = positions == batch.item_positions.cpu()[prompts]
    return ConceptCloud(rows, prompts, labels, is_mention, len(places) - len(kept))
