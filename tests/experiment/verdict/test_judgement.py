"""Verdicts from rows: their words, their correction, and the routes that do not count."""

import math

import pytest
import torch

from saerepgeo.cases.intervention.paper_statistics import paper_statistic
from saerepgeo.cases.intervention.random_walk import random_walk_distance
from saerepgeo.experiment.cells import POOLED
from saerepgeo.experiment.verdict import control_contrasts, judge
from saerepgeo.experiment.verdict.judgement import _worded
from saerepgeo.geometry import class_moments, relative_aedp

DOSES = (-1.0, -0.3, 0.0, 0.3, 1.0)


def rows(slope=0.0, n_seeds=8, moved=0.4, chance=0.003, concepts=("months", "days")):
    generator = torch.Generator().manual_seed(0)
    found = []
    for seed in range(n_seeds):
        for dose in DOSES:
            about = {"dose": dose, "seed": seed, "labels": "given"}
            about["regularizer"] = "fisher" if dose else "none"
            for concept in concepts:
                noise = chance * float(torch.randn((), generator=generator))
                figures = {
                    "relative_aedp": math.exp(moved * dose + seed),
                    "mse": math.exp(slope * moved * dose + 0.02 * dose**2 + noise * (dose != 0)),
                }
                found.append(about | {"split": "heldout_items", "concept": concept} | figures)
            text = {"split": "text", "concept": "text", "mse": 5.0, "relative_aedp": ""}
            found.append(about | text)
    return found


@pytest.mark.parametrize(
    ("slope", "word"), [(-0.3, "effect: lowers"), (0.3, "effect: raises"), (0.0, "no evidence")]
)
def test_the_verdict_names_the_effect_and_its_direction(slope, word):
    verdicts = {v.concept: v for v in judge(rows(slope))}
    assert list(verdicts) == [POOLED, "days", "months"]
    assert verdicts[POOLED].verdict == word
    assert verdicts[POOLED].response.slope == pytest.approx(slope, abs=0.02)
    assert verdicts[POOLED].sentence.startswith("fisher, pooled: ")


def test_single_concepts_are_corrected_for_their_number_and_the_pooled_for_itself():
    verdicts = {v.concept: v for v in judge(rows(-0.3))}
    raw = 2 / 2**8
    assert verdicts[POOLED].p_adjusted == pytest.approx(raw)
    assert verdicts["days"].p_adjusted == pytest.approx(2 * raw)


def test_five_seeds_cannot_decide_and_the_verdict_says_so():
    verdict = judge(rows(-0.3, n_seeds=5))[0]
    assert verdict.verdict == "undecided"
    assert "0.0625" in verdict.sentence


@pytest.mark.parametrize(
    ("p", "low", "word"),
    [(0.05, 0.01, "effect: raises"), (0.06, 0.01, "no evidence"), (0.05, -0.01, "no evidence")],
)
def test_an_effect_needs_both_its_p_value_and_its_interval(p, low, word):
    response = judge(rows(0.3))[0].response
    response = response._replace(interval=response.interval._replace(low=low, high=0.6))
    assert _worded(response, p, 0.05)[0] == word


def test_doses_that_do_not_move_separability_decide_nothing():
    table = rows(0.0)
    for index, row in enumerate(table):
        if row["split"] == "heldout_items":
            row["relative_aedp"] = 1 + 1e-4 * math.sin(index)
            row["mse"] = math.exp(0.1 * row["dose"])
    assert judge(table)[0].verdict == "undecided"


def test_inflated_norms_are_no_separability():
    """Scaling all latents of a run moves AEDP and not the figure that the verdict reads."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(30, 6, generator=generator)
    labels = torch.arange(30) % 3
    inflated = [float(relative_aedp(class_moments(points * a, labels, 3))) for a in (1.0, 4.0)]
    assert inflated[1] == pytest.approx(inflated[0])


def test_figures_read_back_as_text_count_the_same():
    as_text = [{k: str(v) for k, v in row.items()} for row in rows(-0.3)]
    expected = judge(rows(-0.3))[0].response.slope
    assert judge(as_text)[0].response.slope == pytest.approx(expected, rel=1e-12)  # BLAS rounds


def test_the_error_on_text_is_one_for_all_concepts():
    verdict = judge(rows(-0.3), error_split="text")[0]
    assert verdict.error == "mse/text"
    assert verdict.response.slope == pytest.approx(0)


def test_no_finished_run_and_a_cell_twice_are_refused():
    with pytest.raises(ValueError, match="finished"):
        judge([])
    with pytest.raises(ValueError, match="two of"):
        judge([*rows(), rows()[0]])


def test_contrasts_pair_doses_with_the_control_and_with_shuffled_labels():
    table = rows(0.0, chance=0.0)
    shuffled = [
        r | {"labels": "shuffled", "mse": 2.0 * r["mse"]} for r in table if r["dose"] == 1.0
    ]
    found = {
        (c["concept"], c["dose"], c["labels"], c["against"]): c
        for c in control_contrasts([*table, *shuffled], ["mse"])
    }
    against_control = found["months", 1.0, "given", "dose 0"]
    assert against_control["difference"] == pytest.approx(0.02)
    assert against_control["n_seeds"] == 8
    assert found["months", 1.0, "given", "shuffled labels"]["difference"] == pytest.approx(
        -math.log(2)
    )
    assert ("months", -1.0, "given", "shuffled labels") not in found


def test_the_papers_statistic_correlates_within_concept_and_loss():
    table = [
        {
            "model": "m",
            "concept": "months",
            "protocol": protocol,
            "intervention": "centroid_shift",
            "loss_type": "d_GW",
            "best_inter_cluster_dist": x,
            "mse_loss": y if protocol == "paper" else -y,
        }
        for protocol in ("paper", "sound")
        for x, y in ((1.0, 3.0), (2.0, 2.0), (3.0, 1.0))
    ]
    (entry,) = paper_statistic(table)
    assert entry["pearson"] == pytest.approx(-1)
    assert entry["n"] == 3


def test_the_random_walk_grows_as_the_formula_says():
    n_features, alpha, n_steps = 4000, 1.5, 9
    generator = torch.Generator().manual_seed(0)
    shape = (2, n_features)
    centers = torch.randn(shape, generator=generator)
    start = float((centers[0] - centers[1]).norm())
    squares = []
    for _ in range(50):
        walk = centers + sum(
            0.01 * alpha * torch.randn(shape, generator=generator) for _ in range(n_steps)
        )
        squares.append(float((walk[0] - walk[1]).square().sum()))
    expected = random_walk_distance(start, n_features, n_steps, alpha)
    assert (sum(squares) / 50) ** 0.5 == pytest.approx(expected, rel=2e-4)
    assert expected > start + 0.05


def test_contrasts_have_95_percent_intervals():
    table = rows(0.1, chance=0.05)
    found = control_contrasts(table)
    assert found == control_contrasts(table, ("relative_aedp", "mse"), 0.95)
    narrow = control_contrasts(table, ("relative_aedp", "mse"), 0.5)
    for wide, one in zip(found, narrow, strict=True):
        if (wide["split"], wide["figure"]) == ("heldout_items", "mse"):
            assert wide["low"] < one["low"] < one["high"] < wide["high"]
