"""The points of a concept, and what each has seen."""

from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.types import Bool, ConceptActivations, Int


class ConceptPoints(NamedTuple):
    """Which positions of a concept's prompts are points, in order of prompts."""

    chosen: Bool[Tensor, "prompt position"]
    prompts: Int[Tensor, "point"]
    positions: Int[Tensor, "point"]
    labels: Int[Tensor, "point"]
    """Item at the last token of its mention, where the item itself is represented; elsewhere −1."""
    named: Int[Tensor, "point"]
    """Item that has been named by this position; −1 before the mention."""
    n_merged: int
    """Positions left out, since another prompt begins with the same tokens."""


def distinct_points(batch: ConceptActivations) -> ConceptPoints:
    """Return the real positions that are points of their own.

    A causal model gives the same residual wherever the tokens up to a position are the same: such
    positions are one point, the first. A position before the last token of the item's mention knows
    nothing of the item.
    """
    seen: set[tuple[int, ...]] = set()
    chosen = torch.zeros_like(batch.is_real, device="cpu")
    tokens = batch.tokens.tolist()
    for prompt, position in batch.is_real.nonzero().tolist():
        prefix = tuple(tokens[prompt][: position + 1])
        chosen[prompt, position] = prefix not in seen
        seen.add(prefix)
    return _points(batch, chosen)


def real_points(batch: ConceptActivations) -> ConceptPoints:
    """Return all real positions."""
    return _points(batch, batch.is_real.cpu())


def all_positions(batch: ConceptActivations) -> ConceptPoints:
    """Return every position, BOS and padding included, of which only the real ones have items."""
    return _points(batch, torch.ones_like(batch.is_real, device="cpu"))


def _points(batch: ConceptActivations, chosen: Tensor) -> ConceptPoints:
    prompts, positions = chosen.nonzero().T
    items, mentions = batch.labels.cpu()[prompts], batch.item_positions.cpu()[prompts]
    is_real = batch.is_real.cpu()[prompts, positions]
    named = torch.where(is_real & (positions >= mentions), items, -1)
    labels = torch.where(positions == mentions, named, -1)
    n_merged = int((batch.is_real.cpu() & ~chosen).sum())
    chosen = chosen.to(batch.is_real.device)
    return ConceptPoints(chosen, prompts, positions, labels, named, n_merged)
