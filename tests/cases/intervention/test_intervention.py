"""Interventions on latents: what the paper's walk does, and what displacements may not do."""

import pytest
import torch

from saerepgeo.cases.intervention.displacement import (
    displace,
    displacement_rows,
    item_points,
    random_displacement,
)
from saerepgeo.cases.intervention.interventions import intervene
from saerepgeo.cases.intervention.random_walk import (
    PaperPoints,
    paper_points,
    random_walk,
    standardize_rows,
)
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.sae.io.build import new_sae


@pytest.fixture(scope="module")
def sae():
    model = new_sae(d_in=32, d_sae=96, k=8, seed=1).eval().requires_grad_(False)
    with torch.no_grad():  # decoder rows of unequal norm: raw and effective latents differ
        model.sae.W_dec.mul_(torch.linspace(0.5, 2, 96)[:, None])
    return model


@pytest.fixture
def data(tiny_data):
    return ActivationDataModule(**tiny_data)


@pytest.fixture
def concept(data):
    return data.concept("months", with_padding=True)


@pytest.fixture
def points(sae, concept):
    return item_points(sae, concept)


def test_the_walk_is_the_papers_step_for_step(sae):
    generator = torch.Generator().manual_seed(0)
    latents = torch.rand(12, 96, generator=generator)
    residuals = torch.randn(12, 32, generator=generator)
    clusters = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, -1, -1])
    passes = torch.tensor([True] * 11 + [False])
    found = random_walk(
        PaperPoints(residuals, latents, clusters, passes),
        lambda z: sae.decode(z, None),
        1.5,
        torch.Generator().manual_seed(42),
    )
    steps = torch.Generator().manual_seed(42)
    moving = latents.clone()
    for step in range(10):
        centers = torch.stack([moving[clusters == k].mean(0) for k in range(3)])
        distance = torch.pdist(centers).mean()
        assert float(found.distances[step]) == pytest.approx(float(distance), rel=1e-5)
        x, z = (v[passes] for v in (residuals, moving))
        x = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-8)
        z = (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-8)
        error = (x - sae.decode(z, None)).square().mean()
        assert float(found.errors[step]) == pytest.approx(float(error), rel=1e-5)
        shift = 1.5 * 0.01 * torch.randn(3, 96, generator=steps)
        for k in range(3):
            moving[clusters == k] += shift[k]
    assert int(found.objective("d_GW").argmin()) != int(found.objective("AEDP^-1").argmax())


def test_standardized_rows_have_unbiased_unit_variance():
    rows = standardize_rows(torch.randn(4, 9) * 7 + 3)
    torch.testing.assert_close(rows.mean(1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.var(1), torch.ones(4))
    assert bool((standardize_rows(torch.ones(2, 5)) == 0).all())


def test_points_are_the_mentions_counted_once(points, concept, data):
    expected = torch.cat([p.residuals[p.concepts == 0] for p in data.points])
    assert len(points.labels) == len(expected)
    torch.testing.assert_close(points.residuals.sum(0), expected.sum(0), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("loss_type", ["d_GW", "AEDP"])
@pytest.mark.parametrize("scale_factor", [0.5, 1.5])
def test_distances_go_where_they_are_sent(points, loss_type, scale_factor):
    start = displace(points, loss_type, scale_factor, n_steps=0, mse_weight=0.0)
    end = displace(points, loss_type, scale_factor, n_steps=60, mse_weight=0.0)
    assert end.objective < start.objective
    before = torch.pdist(start.moments.sums / start.moments.counts[:, None]).mean()
    after = torch.pdist(end.moments.sums / end.moments.counts[:, None]).mean()
    ratio = float(after / before)
    assert abs(ratio - scale_factor) < abs(1 - scale_factor)
    assert (ratio > 1.05) if scale_factor > 1 else (ratio < 0.95)


def test_displaced_centroids_keep_support_and_sign(points):
    found = displace(points, "AEDP", 1.5, n_steps=30)
    counts = found.moments.counts[:, None]
    before = torch.stack(
        [points.effective.to_dense()[points.labels == k].mean(0) for k in range(points.n_items)]
    )
    after = found.moments.sums / counts
    assert bool((after >= 0).all())
    assert bool(((after > 0) == (before > 0)).all())
    torch.testing.assert_close(before + found.displacements.float(), after.float())


def test_the_control_goes_as_far_in_another_direction(points):
    found = displace(points, "AEDP", 1.5, n_steps=30)
    norms = found.displacements.norm(dim=1)
    control = random_displacement(points, norms, torch.Generator().manual_seed(0))
    torch.testing.assert_close(control.displacements.norm(dim=1), norms, rtol=1e-6, atol=1e-9)
    assert bool((control.moments.sums >= -1e-5).all())
    cosines = torch.cosine_similarity(control.displacements, found.displacements)
    assert float(cosines.mean()) < 0.8


def test_the_decoder_norms_change_nothing(sae, points, concept):
    """Latents scaled up and decoder rows down give the same displacements and errors."""
    scaled = new_sae(d_in=32, d_sae=96, k=8, seed=1).eval().requires_grad_(False)
    scaled.load_state_dict(sae.state_dict())
    factor = 2.0
    with torch.no_grad():
        scaled.sae.W_enc.mul_(factor)
        scaled.sae.b_enc.mul_(factor)
        scaled.sae.W_dec.div_(factor)
    other = item_points(scaled, concept)
    torch.testing.assert_close(other.effective.to_dense(), points.effective.to_dense())
    a, b = (displace(p, "d_GW", 1.2, n_steps=10) for p in (points, other))
    assert b.mse == pytest.approx(a.mse, rel=1e-4)


@pytest.mark.parametrize(("loss_type", "alpha"), [("gw", 1.0), ("AEDP", 0.0)])
def test_unknown_losses_and_scales_are_refused(points, loss_type, alpha):
    with pytest.raises(ValueError, match="`loss_type`"):
        displace(points, loss_type, alpha)


def test_rows_of_both_protocols(sae, concept, data):
    n_points = concept.tokens.numel()
    found = intervene(
        sae,
        concept,
        data.tokenizer.tokenizer,
        "tiny Layer 1",
        scale_factors=(0.5, 1.5),
        cluster_labels=torch.arange(n_points) % 3,
    )
    by_protocol = {p: [r for r in found.rows if r["protocol"] == p] for p in ("paper", "sound")}
    assert len(by_protocol["paper"]) == 2 * 2 * 2
    for row in by_protocol["paper"]:
        if row["intervention"] == "common_shift":
            distances = row["best_inter_cluster_dist"], row["original_inter_cluster_dist"]
            assert distances[0] == pytest.approx(distances[1], rel=1e-5)
    assert len(by_protocol["sound"]) == 2 * 2 * 2
    assert {row["intervention"] for row in by_protocol["sound"]} == {
        "centroid_shift",
        "random_direction",
    }
    shifts = [r for r in by_protocol["sound"] if r["intervention"] == "centroid_shift"]
    controls = [r for r in by_protocol["sound"] if r["intervention"] == "random_direction"]
    assert all("mse_change" not in row for row in shifts)  # α = 1 is not among the factors
    for shift, control in zip(shifts, controls, strict=True):
        assert control["mse_low"] <= control["mse_loss"] <= control["mse_high"]
        assert (control["p"] <= 2 / 40) == (shift["mse_loss"] < control["mse_low"])
        assert control["displacement"] == pytest.approx(shift["displacement"], rel=1e-5)
    assert set(found.walks) == {0.5, 1.5}
    assert len(found.items) == len(found.centroids) == 12


def test_changes_are_against_no_scaling_with_an_interval_over_items(points):
    rows, found = displacement_rows(points, (1.0, 1.5), torch.Generator().manual_seed(0), 20, 5)
    by_alpha = {
        r["scale_factor"]: r
        for r in rows
        if r["loss_type"] == "AEDP" and r["intervention"] == "centroid_shift"
    }
    assert by_alpha[1.0]["mse_change"] == by_alpha[1.0]["mse_change_high"] == 0.0
    row = by_alpha[1.5]
    expected = found["AEDP", 1.5].mse - found["AEDP", 1.0].mse
    assert row["mse_change"] == pytest.approx(expected, rel=1e-4)
    assert row["mse_change_low"] < row["mse_change"] < row["mse_change_high"]


@pytest.mark.parametrize(("n_items", "n_rows"), [(1, 0), (2, 4)])
def test_two_items_give_rows_and_one_gives_none(points, n_items, n_rows):
    first = int((points.labels == 0).nonzero()[0, 0])
    kept = torch.arange(len(points.labels)) == first  # one point is an item as well
    kept |= (points.labels > 0) & (points.labels < n_items)
    effective = points.effective._replace(
        values=points.effective.values[kept], indices=points.effective.indices[kept]
    )
    few = points._replace(
        residuals=points.residuals[kept],
        effective=effective,
        labels=points.labels[kept],
        recons_under=lambda gains: points.residuals[kept] + gains.sum(1, keepdim=True),
    )
    rows, found = displacement_rows(few, (1.5,), torch.Generator().manual_seed(0), 2, 3)
    assert len(rows) == n_rows
    assert len(found) == n_rows // 2
    assert all(row["n_clusters"] == 2 for row in rows)


def test_too_few_clusters_are_told(sae, concept, data):
    labels = torch.full((concept.tokens.numel(),), -1)
    tokenizer = data.tokenizer.tokenizer
    found = intervene(sae, concept, tokenizer, "tiny", ("paper",), cluster_labels=labels)
    (row,) = found.rows
    assert row["reason"].startswith("0 clusters")
    assert found.walks == {}


def test_the_error_counts_positions_that_pass_the_filter(sae, concept, data):
    labels = torch.zeros(concept.tokens.numel(), dtype=torch.long)
    points = paper_points(sae, concept, data.tokenizer.tokenizer, labels)
    assert len(points.residuals) == concept.tokens.numel()
    assert 0 < int(points.passes.sum()) <= len(points.passes)
