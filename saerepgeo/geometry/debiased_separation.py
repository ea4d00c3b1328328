"""Separation less the noise of its centroids: one expectation whatever the number of points.

Centroids of few points lie apart by chance: with variance σ² = E‖x − c_k‖² within classes,

    E‖ĉ_k − ĉ_l‖² = ‖c_k − c_l‖² + σ²(1/n_k + 1/n_l),

so AEDP, relative AEDP and the Fisher ratio fall as classes grow. Here σ² is estimated by
s² = trace(S_w)/(N − K), pooled over classes, and taken off the squares. What is left may be
negative, where classes are as near as chance puts them, and is kept so: its mean is right.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from saerepgeo.geometry.grouped import GroupFigures, group_distances, positive_figures
from saerepgeo.geometry.separation import ClassMoments, between_scatter, within_scatter
from saerepgeo.types import Estimate, Float


def within_variance(moments: ClassMoments) -> Float[Tensor, "*group"]:
    """Return s² = trace(S_w)/(N − K) in float64, of N points in K classes; 0 where N = K."""
    n_free = moments.counts.sum(-1) - (moments.counts > 0).sum(-1)
    return within_scatter(moments).double() / n_free.clamp(min=1)


def debiased_squared_distances(moments: ClassMoments) -> Float[Tensor, "group cluster cluster"]:
    """Return ‖ĉ_k − ĉ_l‖² − s²(1/n_k + 1/n_l) of every group, unbiased for ‖c_k − c_l‖².

    In float64, perhaps negative; 0 on the diagonal and where a class has no points. Unbiased where
    the variance within is the same in all classes, or classes are of equal size. Differentiable.
    """
    present = (moments.counts > 0).double()
    noise = within_variance(moments)[..., None] * present / moments.counts.clamp(min=1)
    is_pair = present[..., None] * present[..., None, :]
    is_pair = is_pair - torch.diag_embed(present)
    return (group_distances(moments).square() - noise[..., None] - noise[..., None, :]) * is_pair


def group_debiased_aedp(moments: ClassMoments) -> GroupFigures:
    """Return the debiased AEDP of every group; undefined where it is not above 0."""
    return positive_figures(_aedp(moments, within_variance(moments)), _has_variance(moments))


def group_debiased_fisher_ratios(moments: ClassMoments) -> GroupFigures:
    """Return the debiased Fisher ratio of every group; undefined where it is not above 0."""
    variance = within_variance(moments)
    is_known = _has_variance(moments) & (variance.detach() > 0)
    return positive_figures(_fisher_ratio(moments, variance), is_known)


def debiased_aedp(moments: ClassMoments) -> Estimate:
    """Return the AEDP less the noise of the centroids, differentiable.

    AEDP·sign(v)·√|v|, v = Σ_{k<l} d²_kl / Σ_{k<l} ‖ĉ_k − ĉ_l‖² the share of the squared distances
    that is no noise, d² of `debiased_squared_distances`; in the units of the points. The root is
    taken of the mean over pairs: that of one pair's noisy square would be low. What remains is that
    noise levels distances: within 2 % where their coefficient of variation is 0.2.
    Fewer than two classes with points, or none with two: undefined. `n_used` counts the centroids,
    `n_dropped` the classes without points.

    >>> from saerepgeo.geometry import class_moments
    >>> x, labels = torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1])
    >>> round(debiased_aedp(class_moments(x, labels, 2)).value.item(), 6)  # √(5² − 2·(1/2 + 1/2))
    4.795832
    """
    return _of_one(moments, _aedp)


def debiased_relative_aedp(moments: ClassMoments) -> Estimate:
    """Return `debiased_aedp` over s, differentiable; undefined as it, and without scatter."""
    return _of_one(moments, lambda m, s2: _aedp(m, s2) / s2.sqrt(), needs_scatter=True)


def debiased_fisher_ratio(moments: ClassMoments) -> Estimate:
    """Return the scatter between classes, less its noise, over that within, differentiable.

    (trace(S_b) − (K−1)·s²)/(N·s²): what `fisher_ratio` tends to as classes grow. Undefined as
    `debiased_relative_aedp`.
    """
    return _of_one(moments, _fisher_ratio, needs_scatter=True)


def _aedp(moments: ClassMoments, variance: Tensor) -> Tensor:
    distances, present = group_distances(moments), moments.counts > 0
    n_others = present.sum(-1) - 1
    raw = distances.square().sum((-2, -1))  # every pair twice, as the noise
    noise = 2 * n_others * variance * (present / moments.counts.clamp(min=1)).sum(-1)
    share = 1 - noise / torch.where(raw > 0, raw, 1.0)
    is_zero = share.detach() == 0  # the root has no slope there
    root = share.sign() * torch.where(is_zero, 1.0, share).abs().sqrt()
    return root * distances.sum((-2, -1)) / (n_others * (n_others + 1)).clamp(min=1)


def _fisher_ratio(moments: ClassMoments, variance: Tensor) -> Tensor:
    n_others = (moments.counts > 0).sum(-1) - 1
    n = moments.counts.sum(-1).clamp(min=1)
    safe = torch.where(variance.detach() > 0, variance, 1.0)
    return (between_scatter(moments).double() - n_others * variance) / (n * safe)


def _has_variance(moments: ClassMoments) -> Tensor:
    n_classes = (moments.counts > 0).sum(-1)
    return (n_classes >= 2) & (moments.counts.sum(-1) > n_classes)


def _of_one(
    moments: ClassMoments,
    figure: Callable[[ClassMoments, Tensor], Tensor],
    needs_scatter: bool = False,
) -> Estimate:
    n_used = int((moments.counts > 0).sum())
    n_dropped = len(moments.counts) - n_used
    group = ClassMoments(*(moment[None] for moment in moments))
    variance = within_variance(group)
    if n_used < 2:
        reason = f"needs two or more classes with points, got {n_used}"
    elif not bool(_has_variance(group)):
        reason = "every class is a single point: the noise of the centroids is unknown"
    elif needs_scatter and not bool(variance.detach() > 0):
        reason = "no scatter within the classes (coincident points in each)"
    else:
        return Estimate(figure(group, variance)[0], n_used, n_dropped)
    return Estimate.undefined(reason, n_used, n_dropped)
