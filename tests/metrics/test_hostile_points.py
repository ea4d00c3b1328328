"""Every metric class on hostile points, as tests/geometry/test_hostile_points.py every function.

A metric class without a row fails. `power`: by which power of a factor its figures grow.
"""

from collections.abc import Callable, Iterator
from inspect import isclass
from typing import Any, NamedTuple

import jaxtyping
import pytest
import torch

from saerepgeo import metrics as m
from saerepgeo.geometry import count_points
from saerepgeo.metrics.geometry_metric import EstimateMetric
from tests.geometry.hostile import (
    FINITE,
    NOT_TAKEN,
    OF_LATENTS,
    OF_POINTS,
    OF_SPECTRA,
    POINTS,
    REFUSED,
    UNDEFINED,
    faults,
    normal,
)

F64 = torch.float64
BASES = {"CloudFigure", "CloudMetric", "PairMetric", "EstimateMetric", "ClassMomentsMetric"}
FEW = dict.fromkeys(("no columns", "one point", "two equal", "all equal", "all 0"), FINITE)
"""Few or equal points are nothing special."""
EQUAL_0 = dict.fromkeys(("two equal", "all equal", "all 0"), 0.0)
MOVES = {"far away": FINITE}
"""Not invariant, or loses digits, as documented."""
HUGE = dict.fromkeys(
    ("1e-320", "1e-200", "1e200", "latents at 1e200", "latents at 1e-200"), REFUSED
)
"""Sums of squares cannot be held."""
COARSE = {"half": FINITE, "bfloat16": FINITE}
DENSE = dict.fromkeys(OF_LATENTS, NOT_TAKEN)


class Row(NamedTuple):
    make: Callable[[], EstimateMetric]
    power: int = 0
    differs: dict[str, Any] = {}  # noqa: RUF012
    given: Callable[[Any], dict[str, Any]] = lambda x: {}
    """What `update` takes besides the points."""
    rtol: float = 0.0


def labels(x: Any) -> dict[str, Any]:
    return {"labels": torch.arange(count_points(x)) % 3}


def places(x: Any) -> dict[str, Any]:
    n = torch.arange(count_points(x))
    return {"prompts": n // 3, "positions": n % 3}


def pair(x: Any) -> dict[str, Any]:
    return {"other": normal(count_points(x), 4, seed=1)} | labels(x)


def residuals(x: Any) -> dict[str, Any]:
    return {"residuals": x.flip(0)}


def tree(over: Any = "points") -> m.MinimumSpanningTreeWeight:
    return m.MinimumSpanningTreeWeight(over, dtype=F64)


ROWS: dict[str, Row] = {
    # clouds
    "TwoNN": Row(lambda: m.TwoNN(dtype=F64)),
    "TwoNNWithin": Row(lambda: m.TwoNNWithin(dtype=F64), given=labels),
    "TwoNNPerCluster": Row(lambda: m.TwoNNPerCluster(4, dtype=F64), differs=MOVES),
    "GRIDE": Row(lambda: m.GRIDE((1, 4), dtype=F64)),
    "ClusterCount": Row(lambda: m.ClusterCount(4, dtype=F64), differs=FEW),
    "NoiseShare": Row(lambda: m.NoiseShare(4, dtype=F64), differs=FEW),
    "Betti0": Row(lambda: m.Betti0(dtype=F64), differs=FEW),
    "AverageGeodesicDistance": Row(
        lambda: m.AverageGeodesicDistance(5, dtype=F64), 1, {"no columns": FINITE} | EQUAL_0
    ),
    "MinimumSpanningTreeWeight": Row(tree, 1, {"no columns": 0.0, "one point": 0.0} | EQUAL_0),
    "Silhouette": Row(
        lambda: m.Silhouette(dtype=F64), 0, {"all equal": FINITE, "all 0": 0.0}, labels
    ),
    "TensorRanks": Row(
        lambda: m.TensorRanks(dtype=F64), 0, FEW | MOVES | {"empty": UNDEFINED}, places
    ),
    # pairs
    "LinearCKA": Row(lambda: m.LinearCKA(dtype=F64), given=pair),
    "ProcrustesDisparity": Row(
        lambda: m.ProcrustesDisparity(dtype=F64), 0, {"two equal": FINITE} | MOVES | HUGE, pair
    ),
    "UnmatchedMass": Row(lambda: m.UnmatchedMass(4, dtype=F64), 0, FEW, pair),
    # classes
    "AverageEuclideanDistance": Row(m.AverageEuclideanDistance, 1, HUGE | MOVES | EQUAL_0, labels),
    "RelativeAEDP": Row(m.RelativeAEDP, 0, HUGE | MOVES, labels),
    "FisherRatio": Row(m.FisherRatio, 0, HUGE | MOVES, labels),
    "DebiasedAEDP": Row(m.DebiasedAEDP, 1, HUGE | MOVES | {"all equal": 0.0, "all 0": 0.0}, labels),
    "DebiasedRelativeAEDP": Row(m.DebiasedRelativeAEDP, 0, HUGE | MOVES, labels),
    "DebiasedFisherRatio": Row(m.DebiasedFisherRatio, 0, HUGE | MOVES, labels),
    "ScaleFreeMSTW": Row(m.ScaleFreeMSTW, 0, HUGE | MOVES, labels),
    # spectra
    "NumericalRank": Row(m.NumericalRank, 0, FEW | MOVES | COARSE),
    "EffectiveRank": Row(lambda: m.EffectiveRank(center=True)),
    "StableRank": Row(m.StableRank, 0, FEW | MOVES),
    "ParticipationRatio": Row(lambda: m.ParticipationRatio(2), 0, FEW | MOVES | HUGE),
    "SpectralRanks": Row(lambda: m.SpectralRanks(dtype=F64), 0, FEW),
    # reconstructions
    "MeanSquaredError": Row(m.MeanSquaredError, 2, FEW | HUGE | DENSE, residuals),
    "FractionVarianceUnexplained": Row(m.FractionVarianceUnexplained, 0, HUGE | DENSE, residuals),
    "RobustFVU": Row(m.RobustFVU, 0, HUGE | MOVES | DENSE, residuals),
    "CosineSimilarity": Row(
        m.CosineSimilarity, 0, DENSE | FEW | MOVES | {"all 0": UNDEFINED}, residuals
    ),
    "RelativeReconstructionBias": Row(
        m.RelativeReconstructionBias, 0, FEW | MOVES | HUGE | DENSE, residuals
    ),
    "L2Norms": Row(m.L2Norms, 1, FEW | MOVES | HUGE | DENSE, residuals),
    "L2Ratio": Row(m.L2Ratio, 0, FEW | MOVES | HUGE | DENSE | {"all 0": UNDEFINED}, residuals),
    "ExplainedVarianceLegacy": Row(
        lambda: m.ExplainedVarianceLegacy(torch.zeros(())),
        0,
        FEW | MOVES | HUGE | DENSE | {"no columns": UNDEFINED, "all 0": UNDEFINED},
        residuals,
    ),
    # latents
    "L0": Row(m.L0, 0, FEW | MOVES),
    "DeadFraction": Row(lambda: m.DeadFraction(150), 0, FEW | MOVES | {"no columns": REFUSED}),
    "L1": Row(m.L1, 1, FEW | MOVES),
    "ActivationFrequencies": Row(
        lambda: m.ActivationFrequencies(150), 0, FEW | MOVES | {"no columns": REFUSED}
    ),
    # metrics around metrics
    "SubsampleInterval": Row(lambda: m.SubsampleInterval(tree(), 4, dtype=F64), 1, FEW | MOVES),
    "NullTest": Row(lambda: m.NullTest(tree(), n_draws=4, dtype=F64), 1, FEW | MOVES, rtol=1e-5),
    "Evidence": Row(
        lambda: m.Evidence([m.Silhouette(), m.TwoNN()], 4, 4, 4, dtype=F64),
        0,
        FEW | MOVES,
        labels,
        1e-5,
    ),
}
OF_150 = ("DeadFraction", "ActivationFrequencies")
"""Made for latents of that number."""
TOKENS = {
    "CrossEntropyRecovered": lambda x: {"clean": x, "zero": 3 * x, "sae": 2 * x},
    "KLRecovered": lambda x: {"zero": 2 * x, "sae": x},
}


@pytest.fixture(autouse=True)
def _as_users_see_it() -> Iterator[None]:
    """Switch the checks of types off, which stand before our own in tests alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_every_metric_class_has_a_row() -> None:
    public = {name: getattr(m, name) for name in m.__all__}
    classes = {n for n, v in public.items() if isclass(v) and issubclass(v, EstimateMetric)}
    assert classes - BASES == ROWS.keys() | TOKENS.keys()


def figures(metric: EstimateMetric) -> dict[str, Any]:
    """Return figures but p-values, which no factor changes, after what `compute` says of them."""
    metric.compute()
    found = metric.estimates()
    assert (metric.reason is None) == all(each.reason is None for each in found.values())
    return {name: each for name, each in found.items() if not name.endswith("/p")}


@pytest.mark.parametrize("name", ROWS)
def test_hostile_points(name: str) -> None:
    make, power, differs, given, rtol = ROWS[name]

    def call(x: Any) -> dict[str, Any]:
        metric = make()
        metric.update(x, **given(x))
        return figures(metric)

    found = []
    if name not in OF_150:
        found += faults(call, POINTS["narrow"], OF_POINTS, power, differs, rtol)
    found += faults(call, POINTS["few entries"], OF_LATENTS, power, differs, rtol)
    assert not found, "\n".join([name, *found])


@pytest.mark.parametrize("name", TOKENS)
def test_hostile_losses(name: str) -> None:
    def call(x: Any) -> dict[str, Any]:
        metric = getattr(m, name)()
        metric.update(**TOKENS[name](x))
        return figures(metric)

    found = faults(call, normal(9).abs() + 1, OF_SPECTRA, 0, {"negative": FINITE}, 1e-2)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_points_that_float32_does_not_hold_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="float64"):
        m.TwoNN().update(POINTS["narrow"] * scale)


def test_a_class_id_that_would_take_all_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="number from 0"):
        m.FisherRatio().update(POINTS["narrow"], torch.arange(36) + 10**9)
