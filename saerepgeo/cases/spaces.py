"""Spaces: the representations of a concept's points that the analyses look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from saerepgeo.geometry.dictionaries import random_dictionary
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import Bool, Float, to_dense


class Space(NamedTuple):
    """One representation of a concept's points."""

    kind: Literal["residuals", "latents", "random"]
    """`random`: the effective latents of a dictionary of the SAE's shape and sparsity."""
    sae: int = 0
    """Which SAE, or which SAE's shape."""
    draw: int = 0
    """Which of several random dictionaries."""

    @property
    def name(self) -> str:
        """The space in tables."""
        return f"{self.kind} {self.draw}" if self.draw else self.kind


RESIDUALS, LATENTS = Space("residuals"), Space("latents")


def all_spaces(n_saes: int, n_random: int) -> list[Space]:
    """Return the residuals and, SAE by SAE, its latents and those of its random dictionaries."""
    spaces = [RESIDUALS]
    for sae in range(n_saes):
        spaces += [Space("latents", sae), *(Space("random", sae, n) for n in range(n_random))]
    return spaces


def sae_name(source: SAESource, others: Sequence[SAESource] = ()) -> str:
    """Return what tables call an SAE: its folder, its place in the registry, or its architecture.

    Folders of one name are told apart by their paths.
    """
    if source.path is None:
        is_new = source.release is None
        return str(source.architecture) if is_new else f"{source.release}/{source.sae_id}"
    name = Path(source.path).name
    same = [other for other in others if other.path and Path(other.path).name == name]
    return source.path if len(same) > 1 else name


@torch.no_grad()
def random_model(
    model: SAEModel,
    residuals: Float[Tensor, "prompt position d_model"],
    chosen: Bool[Tensor, "prompt position"],
    generator: torch.Generator,
) -> SAEModel:
    """Return an SAE of the same shape, sparsity and input normalization with random directions.

    The chosen positions set the threshold of architectures without k (see `random_dictionary`).
    """
    sae_in, _ = model._normalize(residuals[chosen])
    l0 = None
    if model.reads_context:  # nothing for points alone
        found = model.encode_prompts(residuals, chosen).latents
        latents = to_dense(model.effective_latents(found))
        l0 = float((latents != 0).sum()) / len(latents)
    random = random_dictionary(model.sae, sae_in, generator, l0)
    is_scaled = model.normalization == "expected_average_only_in"
    made = type(model)(random, float(model.input_scale) if is_scaled else 1.0)
    return made.eval().requires_grad_(False)
