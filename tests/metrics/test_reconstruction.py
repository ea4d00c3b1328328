"""Reconstruction figures against NumPy and scikit-learn, over batches, processes and bad input."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error, r2_score
from torch.utils._pytree import tree_leaves, tree_map

from saerepgeo.metrics import (
    L0,
    L1,
    ActivationFrequencies,
    CosineSimilarity,
    CrossEntropyRecovered,
    DeadFraction,
    ExplainedVarianceLegacy,
    FractionVarianceUnexplained,
    KLRecovered,
    L2Norms,
    L2Ratio,
    MeanSquaredError,
    RelativeReconstructionBias,
    RobustFVU,
)
from saerepgeo.types import SparseLatents
from tests.metrics.harness import check_metric

PAIRED = {
    "mse": MeanSquaredError,
    "mse per element": lambda: MeanSquaredError(per_element=True),
    "fvu": FractionVarianceUnexplained,
    "robust fvu": RobustFVU,
    "cosine": CosineSimilarity,
    "bias": RelativeReconstructionBias,
    "norms": L2Norms,
    "ratio": L2Ratio,
    "legacy": lambda: ExplainedVarianceLegacy(torch.full((6,), 2.0)),
}


def _pairs(n=40, d_model=6, offset=2.0):
    generator = torch.Generator().manual_seed(0)
    residuals = offset + torch.randn(n, d_model, generator=generator)
    recons = 0.8 * residuals + 0.3 * torch.randn(n, d_model, generator=generator)
    return recons, residuals


def _batches(*columns, sizes=(7, 13, 20)):
    return list(zip(*(column.split(sizes) for column in columns), strict=True))


def _latents(n=40, d_sae=30, k=4):
    generator = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(d_sae - 5, generator=generator)[:k] for _ in range(n)])
    values = torch.rand(n, k, generator=generator) + 0.1
    return values.masked_fill(values < 0.3, 0.0), indices  # the last five latents are dead


@pytest.mark.parametrize("name", PAIRED)
def test_contract_of_paired_figures(name, process_pair):
    check_metric(PAIRED[name], _batches(*_pairs()), process_pair)


@pytest.mark.parametrize(
    "make", [L0, L1, lambda: DeadFraction(30), lambda: ActivationFrequencies(30)]
)
def test_contract_of_latent_figures(make, process_pair):
    values, indices = _latents()
    sparse = [(SparseLatents(v, i, 30),) for v, i in _batches(values, indices)]
    dense = [(latents.to_dense(),) for (latents,) in sparse]
    check_metric(make, dense, process_pair)
    metric = make()
    for latents in sparse:
        metric.update(*latents)
    whole = make()
    whole.update(*(torch.cat([latents for (latents,) in dense]),))
    assert tree_map(float, metric.compute()) == pytest.approx(tree_map(float, whole.compute()))


@pytest.mark.parametrize(("make", "n"), [(CrossEntropyRecovered, 3), (KLRecovered, 2)])
def test_contract_of_recovered_figures(make, n, process_pair):
    generator = torch.Generator().manual_seed(0)
    columns = [torch.rand(40, generator=generator) + level for level in (1, 5, 2)][-n:]
    check_metric(make, _batches(*columns), process_pair)


def test_parity():
    recons, residuals = _pairs()
    y, x = recons.double().numpy(), residuals.double().numpy()
    results = {}
    for name, make in PAIRED.items():
        metric = make()
        for batch in _batches(recons, residuals):
            metric.update(*batch)
        value = metric.compute()
        results |= value if isinstance(value, dict) else {name: value.item()}
    norms_in, norms_out = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    expected = {
        "mse": 6 * mean_squared_error(x, y),
        "mse per element": mean_squared_error(x, y),
        "fvu": ((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "robust fvu": ((x - y) ** 2).sum()
        / ((x - x.mean(0)) ** 2).sum(),  # of 40 none is a hundredth
        "cosine": cosines.mean(),
        "bias": (y**2).sum() / (x * y).sum(),
        "l2_norm_in": norms_in.mean(),
        "l2_norm_out": norms_out.mean(),
        "ratio": (norms_out / norms_in).mean(),
        "legacy": 1 - (((x - y) ** 2).sum(1) / ((x - 2) ** 2).sum(1)).mean(),
    }
    assert results == pytest.approx(expected, rel=1e-12)
    metric = FractionVarianceUnexplained()
    metric.update(recons, residuals)
    weighted = r2_score(x, y, multioutput="variance_weighted")
    assert metric.compute().item() == pytest.approx(1 - weighted, rel=1e-10)


def test_known_answers_of_fvu():
    residuals = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for recons, expected in [(residuals, 0.0), (residuals.mean(0).expand(50, 4), 1.0)]:
        metric = FractionVarianceUnexplained()
        for batch in _batches(recons, residuals, sizes=(1, 19, 30)):
            metric.update(*batch)
        assert metric.compute().item() == pytest.approx(expected, abs=1e-12)


def test_fvu_keeps_its_digits_far_from_the_origin():
    recons, residuals = (x.double() for x in _pairs())
    near, far = FractionVarianceUnexplained(), FractionVarianceUnexplained()
    for y, x in _batches(recons, residuals):
        near.update(y, x)
        far.update(y + 2.0**24, x + 2.0**24)
    assert far.compute().item() == pytest.approx(near.compute().item(), rel=1e-7)


def test_fvu_takes_one_mean_and_not_one_a_batch():
    residuals = torch.tensor([[0.0], [0.0], [10.0], [10.0]])
    metric = FractionVarianceUnexplained()
    for batch in _batches(residuals + 1, residuals, sizes=(2, 2)):
        metric.update(*batch)  # each batch alone has no variance
    assert metric.compute().item() == pytest.approx(4 / 100)


def test_bias_is_the_best_rescaling():
    recons, residuals = (x.double() for x in _pairs())
    metric = RelativeReconstructionBias()
    metric.update(recons, residuals)
    gamma = metric.compute()

    def error(scale):
        return (recons * scale - residuals).square().sum()

    assert error(1 / gamma) < min(error(1.001 / gamma), error(0.999 / gamma))
    shrunk = RelativeReconstructionBias()
    shrunk.update(0.5 * residuals, residuals)
    assert shrunk.compute().item() == pytest.approx(0.5)


def test_cosine_of_zeros():
    residuals = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1e-30], [1e30, 0.0]])
    recons = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1e-30], [1e30, 0.0]])
    metric = CosineSimilarity()
    metric.update(recons, residuals)
    assert metric.compute().item() == pytest.approx(2 / 3)
    estimate = metric.estimate()
    assert (estimate.n_used, estimate.n_dropped) == (3, 1)


def test_dead_fraction_and_its_token_count():
    values, indices = _latents()
    latents = SparseLatents(values, indices, 30)
    metric = DeadFraction(30)
    metric.update(latents)
    n_dead = int((latents.to_dense() != 0).any(0).logical_not().sum())
    assert n_dead >= 5
    assert metric.compute().item() == pytest.approx(n_dead / 30)
    assert metric.estimate().n_used == 40
    assert metric.activation_counts.sum() == values.count_nonzero()


def test_frequencies_and_the_sum_of_latents():
    latents = torch.zeros(200, 5)
    latents[:2, 0], latents[:3, 1], latents[:20, 2], latents[:21, 3] = 1.0, 1.0, -2.0, 3.0
    metric = ActivationFrequencies(5)
    for part in latents.split(70):
        metric.update(part)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == pytest.approx(
        {
            "freq_over_1_percent": 3 / 5,
            "normalized_freq_over_1_percent": 44 / 46,
            "freq_over_10_percent": 1 / 5,
            "normalized_freq_over_10_percent": 21 / 46,
        }
    )
    metric = L1()
    metric.update(latents)
    assert metric.compute().item() == pytest.approx((2 + 3 + 40 + 63) / 200)


def test_points_on_the_mean_or_the_origin_are_left_out():
    residuals = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    for metric, expected in [
        (L2Ratio(), (1 + 0.5) / 2),
        (ExplainedVarianceLegacy(torch.zeros(2)), 1 - (0.0 + 5 / 4) / 2),
    ]:
        metric.update(residuals[[1, 1, 1]], residuals)
        assert metric.compute().item() == pytest.approx(expected)
        assert (metric.estimate().n_used, metric.estimate().n_dropped) == (2, 1)


def test_recovered_and_raw_values():
    metric = CrossEntropyRecovered()
    metric.update(torch.tensor([2.0, 4.0]), torch.tensor([10.0, 12.0]), torch.tensor([3.0, 5.0]))
    assert metric.compute().item() == pytest.approx(7 / 8)
    assert metric.raw == {"clean": 3.0, "zero": 11.0, "sae": 4.0}
    divergence = KLRecovered()
    divergence.update(torch.tensor([8.0, 8.0]), torch.tensor([1.0, 3.0]))
    assert divergence.compute().item() == pytest.approx(0.75)
    assert divergence.raw == {"clean": 0.0, "zero": 8.0, "sae": 2.0}
    divergence.reset()
    assert divergence.raw == {}


def test_raw_values_are_those_of_all_processes(process_pair):
    metric = RawCrossEntropy()
    shares = [[(torch.ones(1), torch.full((1,), 3.0), torch.full((1,), 2.0))], []]
    shares[1] = [(torch.zeros(3), torch.full((3,), 7.0), torch.full((3,), 4.0))]
    for result in process_pair.compute(metric, shares):
        assert result == {"clean": 0.25, "zero": 6.0, "sae": 3.5}


class RawCrossEntropy(CrossEntropyRecovered):
    """Hands out what `raw` holds after `compute`, for the processes send back results only."""

    def compute(self):
        super().compute()
        return self.raw


EMPTY = torch.zeros(0, 6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize(
    ("metric", "update", "reason"),
    [
        (MeanSquaredError(), (EMPTY, EMPTY), "no points"),
        (FractionVarianceUnexplained(), (EMPTY, EMPTY), "no points"),
        (FractionVarianceUnexplained(), (torch.zeros(1, 2), torch.ones(1, 2)), "are equal"),
        (FractionVarianceUnexplained(), (torch.zeros(9, 2), torch.full((9, 2), 0.1)), "are equal"),
        (
            FractionVarianceUnexplained(),
            (torch.zeros(9, 2), torch.full((9, 2), 0.1, dtype=torch.float64)),
            "are equal",
        ),
        (CosineSimilarity(), (EMPTY, EMPTY), "no points"),
        (CosineSimilarity(), (torch.ones(3, 2), torch.zeros(3, 2)), "off the origin"),
        (RelativeReconstructionBias(), (EMPTY, EMPTY), "no points"),
        (RelativeReconstructionBias(), (torch.zeros(3, 2), torch.ones(3, 2)), "orthogonal"),
        (L2Norms(), (EMPTY, EMPTY), "no points"),
        (L2Ratio(), (torch.ones(3, 2), torch.zeros(3, 2)), "off the origin"),
        (
            ExplainedVarianceLegacy(torch.ones(2)),
            (torch.zeros(3, 2), torch.ones(3, 2)),
            "off their",
        ),
        (L0(), (EMPTY,), "no points"),
        (L1(), (EMPTY,), "no points"),
        (ActivationFrequencies(6), (EMPTY,), "no points"),
        (ActivationFrequencies(6), (torch.zeros(2, 6),), "no latent is active"),
        (DeadFraction(6), (EMPTY,), "no points"),
        (CrossEntropyRecovered(), (torch.zeros(0),) * 3, "no tokens"),
        (CrossEntropyRecovered(), (torch.ones(2),) * 3, "loses nothing"),
        (KLRecovered(), (torch.zeros(2), torch.ones(2)), "loses nothing"),
    ],
)
def test_undefined_figures_say_why(metric, update, reason):
    metric.update(*update)
    assert any(each.isnan() for each in tree_leaves(metric.compute()))
    assert reason in metric.reason
    metric.reset()
    assert metric.reason is None
    assert all(each.isnan() for each in tree_leaves(metric.compute()))
    assert metric.reason is not None


@pytest.mark.parametrize("make", PAIRED.values(), ids=PAIRED)
@pytest.mark.parametrize(
    ("recons", "residuals", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 3), "one shape"),
        (torch.zeros(3), torch.zeros(3), "matrix"),
        (torch.full((2, 2), float("nan")), torch.zeros(2, 2), "`recons` must be finite"),
        (torch.zeros(2, 2), torch.full((2, 2), float("inf")), "`residuals` must be finite"),
        (torch.zeros(2, 2, dtype=torch.int32), torch.zeros(2, 2), "floating point"),
    ],
)
def test_refuses(make, recons, residuals, message):
    metric = make()
    with pytest.raises(ValueError, match=message):
        unwrap(type(metric).update)(metric, recons, residuals)


def test_latent_figures_refuse():
    with pytest.raises(ValueError, match="`d_sae` must be at least 1"):
        DeadFraction(0)
    with pytest.raises(ValueError, match="d_sae=5 columns, got 6"):
        DeadFraction(5).update(torch.zeros(2, 6))
    with pytest.raises(ValueError, match="finite"):
        L0().update(torch.full((2, 2), float("nan")))
    with pytest.raises(ValueError, match="floating point"):
        unwrap(L0.update)(L0(), torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="one length"):
        unwrap(KLRecovered.update)(KLRecovered(), torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        KLRecovered().update(torch.tensor([float("inf")]), torch.zeros(1))


def test_updates_hold_no_graph():
    recons, residuals = _pairs()
    metric = MeanSquaredError()
    metric.update(recons.requires_grad_(), residuals)
    assert not metric.squared_error.requires_grad


@pytest.mark.parametrize("make", [*PAIRED.values(), CrossEntropyRecovered])
def test_plot(make):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    metric, columns = make(), _pairs()
    if make is CrossEntropyRecovered:
        columns = (torch.ones(3), torch.full((3,), 9.0), torch.full((3,), 2.0))
    values = [metric(*columns), metric(*columns)]
    for value in (None, values[0], values):
        figure, axes = metric.plot(value)
        assert axes.has_data()
        plt.close(figure)


def test_robust_fvu_leaves_out_the_largest_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(400, 8, generator=generator), dim=1)
    residuals = 1.2 * directions  # one half octave
    recons = residuals + 0.1 * torch.randn(400, 8, generator=generator)

    def figures(extra: torch.Tensor, wrong: float) -> tuple[float, float, int, int]:
        x, y = torch.cat([residuals, extra]), torch.cat([recons, wrong * extra])
        plain, robust = FractionVarianceUnexplained(), RobustFVU()
        for metric in (plain, robust):
            metric.update(y, x)
        estimate = robust.estimate()
        return plain.compute().item(), robust.compute().item(), estimate[1], estimate[2]

    plain, robust, *counts = figures(residuals[:0], 1.0)
    assert robust == pytest.approx(plain, rel=1e-9)
    assert counts == [400, 0]
    few, without, *counts = figures(12.0 * directions[:4], 0.1)  # 4 of 404 are 1 %
    assert without == pytest.approx(plain, rel=1e-9)
    assert counts == [400, 4]
    assert few > 3 * plain
    x, y = (
        np.concatenate([a, b])
        for a, b in ((residuals, 12 * directions[:5]), (recons, 1.2 * directions[:5]))
    )
    expected = ((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert figures(12.0 * directions[:5], 0.1)[1] == pytest.approx(expected, rel=1e-5)


def test_robust_fvu_of_equal_points_and_of_zeros():
    for residuals in (torch.full((30, 4), 7.0), torch.zeros(30, 4)):
        metric = RobustFVU()
        metric.update(residuals + 1, residuals)
        assert metric.compute().isnan()
        assert metric.reason == "all residuals are equal: no variance"


@pytest.mark.parametrize("power", [-32, 30, 31])
def test_robust_fvu_counts_norms_apart_up_to_the_ends_of_its_range(power):
    points = torch.eye(150, dtype=torch.float64)
    points[0] *= 2
    metric, scaled = RobustFVU(), RobustFVU()
    metric.update(0.5 * points, points)
    scaled.update(0.5 * points * 2.0**power, points * 2.0**power)
    assert float(scaled.compute()) == pytest.approx(float(metric.compute()), rel=1e-12)
    assert scaled.estimate().n_dropped == 1
