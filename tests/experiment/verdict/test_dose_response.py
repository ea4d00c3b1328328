"""The statistics of the verdict against closed forms, SciPy and designs of known answer."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from saerepgeo.experiment.verdict import Run, dose_response, holm, paired_difference, sign_flip_test

DOSES = (-1.0, -0.3, 0.0, 0.3, 1.0)


def runs(x, y, n_seeds=8):
    """Runs with log separability x(seed, dose) and log error y(seed, dose)."""
    return [
        Run(seed, dose, math.exp(x(seed, dose)), math.exp(y(seed, dose)))
        for seed in range(n_seeds)
        for dose in DOSES
    ]


def test_a_linear_response_is_recovered_whatever_the_level_of_the_seed():
    result = dose_response(runs(lambda s, d: 0.4 * d + s, lambda s, d: -0.2 * 0.4 * d + 3 * s))
    assert result.slope == pytest.approx(-0.2)
    assert result.p_value == pytest.approx(2 / 2**8)
    assert result.moved == pytest.approx(0.8)
    assert result.pearson == pytest.approx(-1)


def test_a_price_of_pushing_is_no_effect_even_where_separability_answers_unevenly():
    uneven = lambda s, d: 0.4 * d + 0.1 * d**2  # noqa: E731
    result = dose_response(runs(uneven, lambda s, d: (0.05 + 0.01 * s) * d**2))
    assert result.slope == pytest.approx(0, abs=1e-9)
    assert result.curvature > 0.05


def test_a_response_is_recovered_under_a_price():
    uneven = lambda s, d: 0.4 * d + 0.1 * d**2  # noqa: E731
    result = dose_response(runs(uneven, lambda s, d: 0.3 * uneven(s, d) + 0.05 * d**2))
    assert result.slope == pytest.approx(0.3)


def test_units_of_either_figure_do_not_matter():
    table = runs(lambda s, d: 0.4 * d + 0.01 * s * d, lambda s, d: 0.02 * s * d)
    scaled = [Run(r.seed, r.dose, 7 * r.separability, 0.01 * r.error) for r in table]
    a, b = dose_response(table), dose_response(scaled)
    assert b.slope == pytest.approx(a.slope)
    assert b.interval.low == pytest.approx(a.interval.low)
    assert b.p_value == a.p_value


def test_seeds_without_control_or_one_sided_are_left_out_and_counted():
    table = runs(lambda s, d: 0.4 * d, lambda s, d: 0.1 * d)
    table = [r for r in table if not (r.seed == 0 and r.dose == 0)]
    table = [r for r in table if not (r.seed == 1 and r.dose < 0)]
    result = dose_response(table)
    assert (result.n_seeds, result.n_dropped) == (6, 2)
    assert result.slope == pytest.approx(0.25)


def test_too_few_seeds_and_doses_without_effect_are_undefined_with_a_reason():
    assert "seeds" in dose_response(runs(lambda s, d: d, lambda s, d: d, n_seeds=2)).reason
    still = dose_response(runs(lambda s, d: s, lambda s, d: d))
    assert "left separability where it was" in still.reason
    assert math.isnan(still.slope)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_figures_without_a_logarithm_are_refused(value):
    with pytest.raises(ValueError, match="positive and finite"):
        dose_response([Run(0, 0.0, value, 1.0)])


def test_a_cell_twice_is_refused():
    with pytest.raises(ValueError, match="two of"):
        dose_response([Run(0, 0.0, 1.0, 1.0), Run(0, 0.0, 1.0, 2.0)])


@pytest.mark.parametrize("n", [1, 5, 8])
def test_sign_flips_are_counted_exactly(n):
    values = torch.randn(n, generator=torch.Generator().manual_seed(n)).double()
    flips = itertools.product((-1.0, 1.0), repeat=n)
    sums = [abs(sum(f * v for f, v in zip(flip, values.tolist(), strict=True))) for flip in flips]
    expected = sum(s >= abs(float(values.sum())) - 1e-12 for s in sums) / 2**n
    assert sign_flip_test(values) == pytest.approx(expected)


def test_sign_flips_agree_with_scipy_where_they_are_drawn():
    values = torch.randn(20, generator=torch.Generator().manual_seed(1)).double() + 0.3
    reference = stats.permutation_test(
        (values.numpy(), torch.zeros(20).numpy()),
        lambda a, b: (a - b).mean(),
        permutation_type="samples",
        n_resamples=19_999,
        random_state=0,
    )
    assert sign_flip_test(values) == pytest.approx(reference.pvalue, abs=0.01)


def test_holm_leaves_tests_that_were_not_made_out():
    nan = float("nan")
    adjusted = holm([0.02, nan, 0.01])
    assert adjusted[0] == 0.02
    assert math.isnan(adjusted[1])
    assert adjusted[2] == 0.02
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_arms_are_compared_at_the_seeds_that_both_have():
    found = paired_difference({0: 2.0, 1: 4.0, 2: 9.0}, {0: 1.0, 1: 2.0, 5: 1.0})
    assert found["difference"] == pytest.approx(math.log(2))
    assert found["n_seeds"] == 2


def test_the_test_is_of_the_errors_response_and_not_of_separabilitys():
    result = dose_response(runs(lambda s, d: 0.4 * d, lambda s, d: 0.1 * (-1) ** s * d))
    assert result.p_value == 1
    assert result.interval.low < 0 < result.interval.high


@pytest.mark.parametrize(
    ("doses", "powers"),
    [
        ((-1.0, -0.4, 0.4, 1.0), (1, 2, 3)),
        ((-1.0, 0.3, 0.4, 1.0), (1, 2)),
        ((-1.0, -0.4, -0.3, 1.0), (1, 2)),
        ((-1.0, 1.0), (1, 2)),
    ],
)
def test_the_cubic_term_needs_two_doses_on_each_side(doses, powers):
    def error(dose):
        return 0.1 * dose + 0.05 * dose**2 + 0.2 * dose**3

    design = np.array(doses)[:, None] ** np.array(powers)
    expected = np.linalg.lstsq(design, error(np.array(doses)))[0][0]
    table = [Run(s, d, math.exp(d), math.exp(error(d))) for s in range(4) for d in (0.0, *doses)]
    assert dose_response(table).slope == pytest.approx(expected)
