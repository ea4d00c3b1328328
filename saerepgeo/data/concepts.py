"""Concept prompts as activations: whole prompts for the analyses, labeled points for training."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.data.cache import LMSettings, cached_tensors, model_fingerprint
from saerepgeo.data.prompts import Concept, ConceptPrompts
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.types import ActivationBatch, AnalysisBatch, ConceptActivations, generator_for

PROMPTS_PER_CALL = 64


class Concepts:
    """Concepts by name, each loaded when it is reached.

    Args:
        parts: of the work on a concept: it is given once for each, as `AnalysisBatch`; without any
            as it is.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Callable[[str], ConceptActivations],
        parts: Sequence[str] = (),
    ) -> None:
        self.names, self.load, self.parts = names, load, parts

    def __len__(self) -> int:
        return len(self.names) * (len(self.parts) or 1)

    def __iter__(self) -> Iterator[ConceptActivations | AnalysisBatch]:
        for name in self.names:
            concept = self.load(name)
            if not self.parts:
                yield concept
            yield from (AnalysisBatch(concept, part) for part in self.parts)


class ConceptPoints(NamedTuple):
    """Labeled points by the part they play: training, unseen prompts, and unseen items."""

    train: ActivationBatch
    heldout_prompts: ActivationBatch
    heldout_items: ActivationBatch


def concept_activations(
    concept: Concept, settings: LMSettings, lm: Callable[[], FrozenLM], with_padding: bool = False
) -> ConceptActivations:
    """Return the residuals of all prompts of `concept`, from the disk cache where they are there.

    Args:
        with_padding: also run the model over the padding, whose residuals are 0 otherwise; only
            the paper's protocol reads them.
        lm: gives the model; called only where nothing is cached.
    """
    key = {
        "kind": "concept activations/2",
        "with_padding": with_padding,
        "model": model_fingerprint(settings.name),
        **settings._asdict(),
        "prompts": list(concept.prompts),
        "mentions": list(concept.mentions),
    }
    stored = cached_tensors(key, lambda: _compute(concept, lm(), with_padding))
    return ConceptActivations(
        concept=concept.name,
        items=concept.items,
        tokens=stored["tokens"],
        residuals=stored["residuals"],
        is_real=stored["is_real"],
        labels=torch.tensor(concept.item_ids),
        item_positions=stored["item_positions"],
    )


def split_points(
    activations: Sequence[ConceptActivations],
    prompts: ConceptPrompts,
    heldout_items: float,
    heldout_prompts: float,
    seed: int,
) -> ConceptPoints:
    """Return the labeled points: the residual at the last token of each item's mention.

    Prompts whose tokens up to the mention are the same give the same point and count once, so no
    held-out point is also a training point. `heldout_items` of each concept's items (at least two,
    and none where fewer than three would stay) are never trained on, in whatever prompt;
    `heldout_prompts` of each other item's points (at least one of three) are held out as well.

    Raises:
        ValueError: a fraction outside [0, 1).
    """
    for name, value in (("heldout_items", heldout_items), ("heldout_prompts", heldout_prompts)):
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` must be in [0, 1), got {value}")
    parts: list[list[ActivationBatch]] = [[], [], []]
    for number, (concept, first) in enumerate(
        zip(activations, prompts.first_item_ids, strict=True)
    ):
        rows = distinct_prompts(concept)
        part = _assign_parts(concept, rows, heldout_items, heldout_prompts, seed)
        residuals = concept.residuals[rows, concept.item_positions[rows]]
        labels = concept.labels[rows] + first
        for index in range(3):
            chosen = part == index
            ids = torch.full((int(chosen.sum()),), number)
            parts[index].append(ActivationBatch(residuals[chosen], labels[chosen], ids))
    return ConceptPoints(*(concatenate(part) for part in parts))


def concatenate(batches: Sequence[ActivationBatch]) -> ActivationBatch:
    """Return the batches as one."""
    return ActivationBatch(*(torch.cat(columns) for columns in zip(*batches, strict=True)))


def draw_balanced(labels: Tensor, n_points: int, generator: torch.Generator) -> Tensor:
    """Return `n_points` indices into `labels`, every label as often as every other (±1).

    Within a label each point is drawn equally often up to one before any comes again.
    """
    order = torch.randperm(len(labels), generator=generator)
    classes = labels.unique()
    rows = [order[labels[order] == label] for label in classes]
    shift = torch.randint(len(classes), (1,), generator=generator)
    wheel = (torch.arange(n_points) + shift) % len(classes)
    picked = torch.empty(n_points, dtype=torch.long)
    for index, members in enumerate(rows):
        slots = (wheel == index).nonzero()[:, 0]
        picked[slots] = members[torch.arange(len(slots)) % len(members)]
    return picked


def batches_by_length(lengths: Tensor) -> list[Tensor]:
    """Return the prompts of each LM call, so alike in length that under a tenth is padding.

    >>> [rows.tolist() for rows in batches_by_length(torch.tensor([10, 20, 19]))]
    [[0], [2, 1]]
    """
    order = lengths.argsort(stable=True)
    calls: list[list[int]] = []
    for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        last = calls[-1] if calls else []
        if not last or len(last) == PROMPTS_PER_CALL or lengths[last[0]] <= 0.9 * length:
            calls.append([])
        calls[-1].append(row)
    return [torch.tensor(call) for call in calls]


def _compute(concept: Concept, lm: FrozenLM, with_padding: bool) -> dict[str, Tensor]:
    tokens, spans = lm.tokenizer.encode(concept.prompts)
    lengths = torch.tensor([len(span) for span in spans])
    residuals = torch.zeros(*tokens.shape, lm.d_model)
    for rows in batches_by_length(lengths):
        width = tokens.shape[1] if with_padding else int(lengths[rows].max())
        residuals[rows, :width] = lm.residuals(tokens[rows, :width]).cpu()
    positions = [
        _last_token(span, mention) for span, mention in zip(spans, concept.mentions, strict=True)
    ]
    in_prompt = torch.arange(tokens.shape[1]) < lengths[:, None]
    if not with_padding:
        residuals[~in_prompt] = 0
    return {
        "tokens": tokens,
        "residuals": residuals,
        "is_real": lm.tokenizer.is_real(tokens) & in_prompt,
        "item_positions": torch.tensor(positions),
    }


def _last_token(spans: Sequence[tuple[int, int]], mention: tuple[int, int]) -> int:
    """Return the position of the last token that overlaps the characters of the mention."""
    start, end = mention
    return max(i for i, (low, high) in enumerate(spans) if low < end and high > start)


def distinct_prompts(concept: ConceptActivations) -> Tensor:
    """Return the prompts that are first with their tokens up to the item's mention."""
    seen: dict[tuple[int, ...], int] = {}
    for row, position in enumerate(concept.item_positions.tolist()):
        seen.setdefault(tuple(concept.tokens[row, : position + 1].tolist()), row)
    return torch.tensor(sorted(seen.values()))


def _assign_parts(
    concept: ConceptActivations, rows: Tensor, items: float, prompts: float, seed: int
) -> Tensor:
    """Return for each row 0 (train), 1 (held-out prompt) or 2 (held-out item)."""
    generator = generator_for(seed, f"heldout/{concept.concept}")
    n_items = len(concept.items)
    n_heldout = max(2, round(items * n_items)) if items > 0 else 0
    if n_items - n_heldout < 3:
        n_heldout = 0
    heldout = torch.randperm(n_items, generator=generator)[:n_heldout]
    labels = concept.labels[rows]
    part = torch.where(torch.isin(labels, heldout), 2, 0)
    for item in range(n_items):
        members = ((labels == item) & (part == 0)).nonzero()[:, 0]
        n_out = round(prompts * len(members))
        if prompts > 0 and len(members) >= 3:
            n_out = max(1, n_out)
        order = torch.randperm(len(members), generator=generator)
        part[members[order[:n_out]]] = 1
    return part
