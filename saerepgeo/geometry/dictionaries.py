"""The dictionary that knows nothing: the baseline of every statement about a trained one."""

import copy
from typing import Any

import torch
from torch import Tensor

from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.geometry.clouds.entries import check_matrix, full_precision
from saerepgeo.geometry.clouds.neighbors import nearest_neighbors
from saerepgeo.types import Estimate, Float


@torch.no_grad()
def random_dictionary(
    sae: Any,
    residuals: Float[Tensor, "point d_model"] | None = None,
    generator: torch.Generator | None = None,
    l0: float | None = None,
) -> Any:
    """Return an SAE of the same shape and sparsity whose directions are random.

    Decoder rows are uniform on the unit sphere, the encoder is the decoder's transpose, and the
    points are centered at the old `b_dec`. What such a dictionary shows too is no finding about the
    trained one. TopK and BatchTopK keep their k. ReLU, JumpReLU and gated SAEs get one threshold t
    for all latents (`b_enc = −t`, `threshold = t` ≥ 0 or `b_gate = −t`) that leaves as many active
    on `residuals` as in the trained SAE, ties aside. Matching pursuit takes as many steps as the
    trained SAE has active latents on average. A temporal SAE predicts nothing from the context and
    selects its k latents, or l0 of them. Encoder and decoder of a transcoder are drawn apart, and
    its points are centered at their own mean.

    Args:
        sae: a SAELens SAE, of inference or training form; it is not changed.
        residuals: what its `encode` takes; needed for architectures without k.
        generator: source of randomness, on the CPU; by default one seeded with 0.
        l0: mean number of active latents to match; by default that of `sae` on `residuals`.

    Raises ValueError for an architecture without k and residuals that are missing or give no l0.
    """
    if residuals is not None:
        check_matrix(residuals, "residuals")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    cfg = copy.deepcopy(sae.cfg)
    # Made afresh: a copied SAE with input normalization writes into the original.
    random = type(sae)(cfg).to(device=sae.W_dec.device, dtype=sae.W_dec.dtype)
    for parameter in random.parameters():
        parameter.zero_()
    random.W_dec.copy_(_directions(sae.W_dec, generator))
    reads_elsewhere = hasattr(cfg, "d_out")
    if reads_elsewhere:
        random.W_enc.copy_(_directions(sae.W_enc.T, generator).T)
    elif hasattr(random, "W_enc"):
        random.W_enc.copy_(random.W_dec.T)
    random.b_dec.copy_(sae.b_dec)
    center = 0.0 if cfg.apply_b_dec_to_input or reads_elsewhere else random.W_dec @ random.b_dec
    _match_sparsity_(sae, random, residuals, center, l0)
    return random.train(sae.training)


@full_precision()
def mean_nearest_cosine(directions: Float[Tensor, "direction dim"]) -> Estimate:
    """Return the mean over directions of the cosine with the nearest other direction.

    mean_i max_{j≠i} ⟨d_i, d_j⟩/(‖d_i‖‖d_j‖): 1 where every latent has a double. Rows of 0 are left
    out and counted in `n_dropped`, `n_used` counts the others; fewer than two: undefined.

    >>> float(mean_nearest_cosine(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])))
    0.6666666666666666
    """
    rows = as_float64(directions.detach(), "directions")
    sizes = rows.abs().amax(1, keepdim=True) if rows.numel() else rows[:, :0].sum(1, keepdim=True)
    is_off = sizes[:, 0] > 0
    rows = rows[is_off] / sizes[is_off]
    n_used, n_dropped = len(rows), len(directions) - len(rows)
    if n_used < 2:
        reason = f"{n_used} directions that are not 0, 2 needed"
        return Estimate.undefined(reason, n_used, n_dropped)
    distances = nearest_neighbors(rows / rows.norm(dim=1, keepdim=True), 1).distances
    return Estimate((1 - distances.square() / 2).mean(), n_used, n_dropped)


def _match_sparsity_(
    sae: Any, random: Any, residuals: Tensor | None, center: Tensor | float, l0: float | None
) -> None:
    cfg = random.cfg
    if hasattr(cfg, "k"):
        random.b_enc.sub_(center)
        return
    if getattr(cfg, "sae_diff_type", None) == "topk" and cfg.kval_topk is not None:
        return
    if residuals is None or len(residuals) == 0:
        raise ValueError(
            f"`residuals` are needed to match the l0 of a {cfg.architecture()} SAE, got none."
        )
    l0 = float((sae.encode(residuals) != 0).sum()) / len(residuals) if l0 is None else l0
    if hasattr(cfg, "max_iterations"):
        cfg.max_iterations, cfg.residual_threshold = max(1, round(l0)), 0.0
        cfg.stop_on_duplicate_support = False
    elif hasattr(cfg, "kval_topk"):
        cfg.sae_diff_type, cfg.kval_topk = "topk", max(1, round(l0))
    else:
        inputs = random.process_sae_in(residuals)
        if hasattr(cfg, "d_out"):
            center = inputs.mean(0) @ random.W_enc
        projections = (inputs @ random.W_enc - center).flatten()
        threshold = _level(projections, round(l0 * len(residuals)))
        if hasattr(random, "threshold"):
            random.b_enc.sub_(center)
            random.threshold.fill_(float(threshold.clamp(min=0.0)))
        elif hasattr(random, "b_gate"):
            random.b_gate.sub_(center).sub_(threshold)
            random.b_mag.sub_(center)
        else:
            random.b_enc.sub_(center).sub_(threshold)


def _directions(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return rows that are uniform on the unit sphere."""
    rows = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return (rows / rows.norm(dim=1, keepdim=True)).to(like)


def _level(values: Tensor, n_active: int) -> Tensor:
    """Return the level that `n_active` of the values exceed."""
    if not 0 < n_active < values.numel():
        raise ValueError(
            f"`residuals` must leave some latents on and some off, got {n_active} of "
            f"{values.numel()} active; check that they are what the SAE was trained on."
        )
    return values.kthvalue(values.numel() - n_active).values
