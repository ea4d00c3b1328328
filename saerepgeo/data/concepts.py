"""Concept prompts as activations: whole prompts for the analyses, labeled points for training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.data.cache import LMSettings, cached_tensors
from saerepgeo.data.prompts import Concept, ConceptPrompts
from saerepgeo.data.prompts.names import start_of
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.sources import model_fingerprint
from saerepgeo.lm.tokenizer import LMTokenizer
from saerepgeo.types import ActivationBatch, AnalysisBatch, ConceptActivations, generator_for

PROMPTS_PER_CALL = 64


@dataclass(eq=False)
class Concepts:
    """Concepts by name, each loaded when it is reached.

    Given as it is, or once for each of the `parts` of the work on it, as `AnalysisBatch`.
    """

    names: Sequence[str]
    load: Callable[[str], ConceptActivations]
    parts: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names) * (len(self.parts) or 1)

    def __iter__(self) -> Iterator[ConceptActivations | AnalysisBatch]:
        for concept in map(self.load, self.names):
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

    `lm` is called only where nothing is cached. Residuals of padding are 0, unless `with_padding`
    runs the model over it as well; only the paper's protocol reads them.
    """
    return activations_by_hook(concept, [settings], lm, with_padding)[settings.hook_name]


def activations_by_hook(
    concept: Concept,
    settings: Sequence[LMSettings],
    lm: Callable[[], FrozenLM],
    with_padding: bool = False,
) -> dict[str, ConceptActivations]:
    """Return `concept_activations` by hook; one pass of the model reads those not in the cache."""
    found: dict[str, ConceptActivations] = {}
    hooks = [each.hook_name for each in settings]

    @cache
    def computed() -> dict[str, dict[str, Tensor]]:
        return _compute(concept, lm(), [hook for hook in hooks if hook not in found], with_padding)

    def compute(hook: str) -> dict[str, Tensor]:
        return computed()[hook]

    labels = torch.tensor(concept.item_ids)
    texts = {"prompts": list(concept.prompts), "mentions": list(concept.mentions)}
    for each in settings:
        hook, model = each.hook_name, {"model": model_fingerprint(each.name), **each._asdict()}
        key = {"kind": "concept activations/2", "with_padding": with_padding, **model, **texts}
        stored = cached_tensors(key, partial(compute, hook))
        found[hook] = ConceptActivations(
            concept=concept.name, items=concept.items, labels=labels, **stored
        )
    return found


def check_lengths(prompts: ConceptPrompts, tokenizer: LMTokenizer, n_positions: int) -> None:
    """Refuse prompts that are longer than the model's `n_positions`, with a ValueError."""
    for concept in prompts:
        _, spans = tokenizer.encode(concept.prompts)
        longest = max(range(len(spans)), key=lambda row: len(spans[row]))
        if (n_tokens := len(spans[longest])) > n_positions:
            raise ValueError(
                f"prompts must be at most {n_positions} tokens long (the model's positions), "
                f"{start_of(concept.prompts[longest])!r} of concept {concept.name!r} is "
                f"{n_tokens}; shorten it"
            )


def _compute(
    concept: Concept, lm: FrozenLM, hooks: Sequence[str], with_padding: bool
) -> dict[str, dict[str, Tensor]]:
    tokens, spans = lm.tokenizer.encode(concept.prompts)
    lengths = torch.tensor([len(span) for span in spans])
    residuals = {hook: torch.zeros(*tokens.shape, lm.d_model) for hook in hooks}
    for rows in batches_by_length(lengths):
        width = tokens.shape[1] if with_padding else int(lengths[rows].max())
        for hook, found in lm.residuals_by_hook(tokens[rows, :width], hooks).items():
            residuals[hook][rows, :width] = found.cpu()
    in_prompt = torch.arange(tokens.shape[1]) < lengths[:, None]
    if not with_padding:
        for found in residuals.values():
            found[~in_prompt] = 0
    positions = [  # the last token that overlaps the characters of the mention
        max(position for position, (low, high) in enumerate(span) if low < end and high > start)
        for span, (start, end) in zip(spans, concept.mentions, strict=True)
    ]
    of_all = {
        "tokens": tokens,
        "is_real": lm.tokenizer.is_real(tokens) & in_prompt,
        "item_positions": torch.tensor(positions),
    }
    return {hook: {"residuals": found, **of_all} for hook, found in residuals.items()}


def batches_by_length(lengths: Tensor) -> list[Tensor]:
    """Return the prompts of each LM call, so alike in length that under a tenth is padding.

    >>> [rows.tolist() for rows in batches_by_length(torch.tensor([10, 20, 19]))]
    [[0], [2, 1]]
    """
    calls: list[list[int]] = []
    for row in lengths.argsort(stable=True).tolist():
        last = calls[-1] if calls else []
        if len(last) in (0, PROMPTS_PER_CALL) or lengths[last[0]] <= 0.9 * int(lengths[row]):
            calls.append([])
        calls[-1].append(row)
    return [torch.tensor(call) for call in calls]


def split_points(
    activations: Sequence[ConceptActivations],
    prompts: ConceptPrompts,
    heldout_items: float,
    heldout_prompts: float,
    seed: int,
) -> ConceptPoints:
    """Return the labeled points: the residual at the last token of each item's mention.

    Prompts with the same tokens up to the mention give the same point, which counts once: no
    held-out point is also a training point. `heldout_items` of each concept's items (at least two,
    and none where fewer than three would stay) are never trained on, in whatever prompt;
    `heldout_prompts` of each other item's points (at least one of three) are held out as well.

    Raises ValueError on a fraction outside [0, 1).
    """
    for name, value in (("heldout_items", heldout_items), ("heldout_prompts", heldout_prompts)):
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` must be in [0, 1), got {value}")
    points, parts = [], []
    firsts = zip(activations, prompts.first_item_ids, strict=True)
    for number, (concept, first) in enumerate(firsts):
        rows = distinct_prompts(concept)
        parts.append(_assign_parts(concept, rows, heldout_items, heldout_prompts, seed))
        residuals = concept.residuals[rows, concept.item_positions[rows]]
        points.append((residuals, concept.labels[rows] + first, torch.full_like(rows, number)))
    all_points = ActivationBatch(*map(torch.cat, zip(*points, strict=True)))
    part = torch.cat(parts)
    return ConceptPoints(*(points_at(all_points, part == index) for index in range(3)))


def _assign_parts(
    concept: ConceptActivations, rows: Tensor, items: float, prompts: float, seed: int
) -> Tensor:
    """Return for each row 0 (train), 1 (held-out prompt) or 2 (held-out item)."""
    generator = generator_for(seed, f"heldout/{concept.concept}")
    n_items = len(concept.items)
    n_out = max(2, round(items * n_items)) if items > 0 else 0
    order = torch.randperm(n_items, generator=generator)
    heldout = order[: n_out if n_items - n_out >= 3 else 0]
    labels = concept.labels[rows]
    part = torch.where(torch.isin(labels, heldout), 2, 0)
    for item in range(n_items):
        members = ((labels == item) & (part == 0)).nonzero()[:, 0]
        at_least = int(prompts > 0 and len(members) >= 3)
        n_out = max(at_least, round(prompts * len(members)))
        order = torch.randperm(len(members), generator=generator)
        part[members[order[:n_out]]] = 1
    return part


def distinct_prompts(concept: ConceptActivations) -> Tensor:
    """Return the prompts that are first with their tokens up to the item's mention."""
    seen: dict[tuple[int, ...], int] = {}
    for row, position in enumerate(concept.item_positions.tolist()):
        seen.setdefault(tuple(concept.tokens[row, : position + 1].tolist()), row)
    return torch.tensor(list(seen.values()))


def points_at(points: ActivationBatch, rows: Tensor | slice) -> ActivationBatch:
    """Return the points at `rows`: indices, a mask, or a slice."""
    return ActivationBatch(*(column[rows] for column in points))


def draw_balanced(labels: Tensor, n_points: int, generator: torch.Generator) -> Tensor:
    """Return `n_points` indices into `labels`, every label as often as every other (±1).

    Within a label each point is drawn equally often up to one before any comes again.
    """
    order = torch.randperm(len(labels), generator=generator)
    _, classes, sizes = labels.unique(return_inverse=True, return_counts=True)
    shift = torch.randint(len(sizes), (1,), generator=generator)
    slots = torch.arange(n_points)
    wheel, turns = (slots + shift) % len(sizes), slots // len(sizes)
    members = order[classes[order].argsort(stable=True)]  # class by class, each in drawn order
    firsts = sizes.cumsum(0) - sizes
    return members[firsts[wheel] + turns % sizes[wheel]]
