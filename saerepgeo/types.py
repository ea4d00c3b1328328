"""The tuples that flow, the array types that name their shapes, and explicit randomness."""

import hashlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING or find_spec("jaxtyping"):
    from jaxtyping import Bool, Float, Int
else:  # geometry/ stands alone on torch, numpy, scipy and scikit-learn
    Bool = Float = Int = Annotated

BACKGROUND = -1
"""Label and concept id of a point of background text."""


class ActivationBatch(NamedTuple):
    """Points of one training or validation batch; special and padding positions never get here."""

    residuals: Float[Tensor, "point d_model"]
    labels: Int[Tensor, "point"]
    """Item id, unique over all concepts; `BACKGROUND` (−1) for background text."""
    concepts: Int[Tensor, "point"]
    """Concept id; `BACKGROUND` (−1) for background text."""


class ConceptActivations(NamedTuple):
    """All prompts of one concept, every position of them, as the analysis cases read it."""

    concept: str
    items: tuple[str, ...]
    """Names of the concept's items."""
    tokens: Int[Tensor, "prompt position"]
    residuals: Float[Tensor, "prompt position d_model"]
    is_real: Bool[Tensor, "prompt position"]
    """Neither a special token nor padding."""
    labels: Int[Tensor, "prompt"]
    """Index into `items` of the item that the prompt names."""
    item_positions: Int[Tensor, "prompt"]
    """Position of the last token of the item's mention: the first that has seen the whole item."""


class AnalysisBatch(NamedTuple):
    """One part of the work on a concept: a space of it, or a condition."""

    activations: ConceptActivations
    part: str


class SparseLatents(NamedTuple):
    """Latents by their active entries: row p has `values[p, i]` at `indices[p, i]`, 0 elsewhere."""

    values: Float[Tensor, "point k"]
    indices: Int[Tensor, "point k"]
    d_sae: int

    @classmethod
    def from_dense(cls, latents: Float[Tensor, "point d_sae"]) -> "SparseLatents":
        """Return the same latents by their active entries; differentiable.

        k is the largest number that a point has, at least 1; others fill up with zeros.

        >>> SparseLatents.from_dense(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).values
        tensor([[2.],
                [0.]])
        """
        active = latents.detach() != 0
        k = max(int(active.sum(1).max()), 1) if len(latents) else 1
        indices = active.byte().topk(min(k, latents.shape[1]), dim=1, sorted=False).indices
        return cls(latents.gather(1, indices), indices, latents.shape[1])

    def check_places(self) -> None:
        """Raise ValueError unless every value has an index in 0…d_sae − 1."""
        values, indices, d_sae = self
        if values.ndim != 2 or values.shape != indices.shape:
            shapes = f"{tuple(values.shape)} and {tuple(indices.shape)}"
            raise ValueError(f"`values` and `indices` must be [point, k] alike, got {shapes}")
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise ValueError(f"`indices` must be integers, got {indices.dtype}")
        low, high = map(int, indices.aminmax()) if indices.numel() else (0, -1)
        if not 0 <= low <= high + 1 <= d_sae:
            places = f"0…{d_sae - 1} (d_sae={d_sae})"
            raise ValueError(f"`indices` of latents must lie in {places}, got {low}…{high}")

    def merged(self) -> "SparseLatents":
        """Return the same latents, each index once a row: repeated ones add up as in `to_dense`."""
        self.check_places()
        places = self.indices.masked_fill(self.values == 0, -1).sort(1).values
        is_repeated = (places[:, 1:] == places[:, :-1]) & (places[:, 1:] >= 0)
        return SparseLatents.from_dense(self.to_dense()) if bool(is_repeated.any()) else self

    def to_dense(self) -> Float[Tensor, "point d_sae"]:
        """Return the latents as a dense tensor; differentiable in `values`, checked."""
        self.check_places()
        dense = self.values.new_zeros(len(self.values), self.d_sae)
        return dense.scatter_add(1, self.indices.long(), self.values)


def to_dense(
    latents: "Float[Tensor, 'point d_sae'] | SparseLatents",
) -> Float[Tensor, "point d_sae"]:
    """Return latents as a dense tensor, in whichever form they come; differentiable."""
    return latents.to_dense() if isinstance(latents, SparseLatents) else latents


class SAEOutput(NamedTuple):
    """What one pass through an SAE gives."""

    recons: Float[Tensor, "point d_model"]
    """In the units of the residuals, input normalization undone."""
    latents: "Float[Tensor, 'point d_sae'] | SparseLatents"
    """As the architecture defines them (raw: decoder norms not multiplied in)."""
    losses: dict[str, Tensor]
    """The architecture's own sparsity and auxiliary terms, scaled; only in training."""


class Estimate(NamedTuple):
    """A number together with what it was computed from; never a silent NaN."""

    value: Tensor
    """float64 scalar; NaN exactly where `reason` says why."""
    n_used: int
    n_dropped: int
    reason: str | None = None

    def __float__(self) -> float:
        return float(self.value.detach())

    def with_value(self, value: float) -> "Estimate":
        """Return another number of the same points."""
        return self._replace(value=torch.tensor(value, dtype=torch.float64))

    @classmethod
    def undefined(cls, reason: str, n_used: int = 0, n_dropped: int = 0) -> "Estimate":
        """Return the NaN estimate with the reason for it."""
        return cls(torch.tensor(float("nan"), dtype=torch.float64), n_used, n_dropped, reason)


class Interval(NamedTuple):
    """A two-sided interval of a statistic and how it was made."""

    low: float
    high: float
    level: float
    """Nominal coverage, e.g. 0.95."""
    n_draws: int


class ModelFacts(NamedTuple):
    """What the configuration of a language model says of its residual stream."""

    d_model: int
    has_layer_norm: bool
    """LayerNorm takes the mean of a residual off, RMSNorm does not."""
    n_positions: int | None = None
    """The longest prompt that the model takes, where it has a bound."""


def generator_for(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """Return a CPU generator that depends on nothing but its arguments.

    Equal arguments give the same numbers on every machine, process and dataloader worker; others
    an unrelated stream.

    >>> a, b = generator_for(0, "contexts", 3), generator_for(0, "contexts", 3)
    >>> bool(torch.rand(4, generator=a).equal(torch.rand(4, generator=b)))
    True
    """
    text = "/".join([str(seed), purpose, *map(str, indices)])
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
