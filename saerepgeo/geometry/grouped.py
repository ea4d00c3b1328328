"""Separation within many groups of classes at once, without asking their device for a number.

A training step knows its concepts and not which of their items it has met: a host that looked would
wait for the device, once a concept. Here all groups are one padded stack, and a figure that is
undefined is said to be by a mask on the device. The formulas are those of `separation`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.pairwise import gram_distances
from saerepgeo.geometry.separation import ClassMoments, between_scatter, within_scatter
from saerepgeo.types import Bool, Float, Int


class GroupFigures(NamedTuple):
    """A figure of every group; 1 where it is undefined."""

    values: Float[Tensor, "group"]
    is_defined: Bool[Tensor, "group"]


def group_classes(groups: Sequence[range], device: torch.device) -> Int[Tensor, "group cluster"]:
    """Return the classes of each group, filled up with −1; the host does not wait for the copy."""
    width = max(map(len, groups), default=0)
    rows = [[*classes, *[-1] * (width - len(classes))] for classes in groups]
    host = torch.tensor(rows, dtype=torch.long).view(len(groups), width)
    return host.to(device, non_blocking=True)


def grouped(moments: ClassMoments, classes: Int[Tensor, "group cluster"]) -> ClassMoments:
    """Return the moments of `classes` by group; those of −1 have no points."""
    is_class = classes >= 0
    # each row is chosen once, but for those that count nothing: the gradient has one order
    chosen = (m.index_select(0, classes.clamp(min=0).flatten()) for m in moments)
    counts, sums, squares = (m.unflatten(0, classes.shape) for m in chosen)
    return ClassMoments(counts * is_class, sums * is_class[..., None], squares * is_class)


def group_distances(moments: ClassMoments) -> Float[Tensor, "group cluster cluster"]:
    """Return the distances between the centroids of every group, in float64; differentiable.

    0, without gradient, where a class has no points, and where two coincide. By scalar products
    about the mean of the group: no buffer has an entry a pair and column, and what that loses lies
    below the rounding of float32 moments.
    """
    present = moments.counts > 0
    centers = (moments.sums / moments.counts.clamp(min=1)[..., None].to(moments.sums)).double()
    n_present = present.sum(-1).clamp(min=1)[..., None, None]
    distances = gram_distances(centers - centers.sum(-2, keepdim=True) / n_present)
    return torch.where(present[..., None] & present[..., None, :], distances, 0.0)


def group_aedp(moments: ClassMoments) -> GroupFigures:
    """Return the AEDP of every group; undefined with fewer than two classes, or all equal."""
    n = (moments.counts > 0).sum(-1)
    aedp = group_distances(moments).sum((-2, -1)) / (n * (n - 1)).clamp(min=1)
    return positive_figures(aedp, n >= 2)


def group_fisher_ratios(moments: ClassMoments) -> GroupFigures:
    """Return the Fisher ratio of every group; undefined where it has no scatter, or is 0."""
    between, within = between_scatter(moments), within_scatter(moments)
    has_classes = (moments.counts > 0).sum(-1) >= 2
    ratio = between / torch.where(within.detach() > 0, within, 1.0)
    return positive_figures(ratio.double(), has_classes & (within.detach() > 0))


def positive_figures(values: Tensor, is_known: Tensor) -> GroupFigures:
    """Return figures that have a logarithm: `values` where they are known, and above 0."""
    is_defined = is_known & (values.detach() > 0)
    return GroupFigures(torch.where(is_defined, values, 1.0), is_defined)
