"""Metrics around metrics: intervals from subsamples of prompts, and comparison with nulls."""

from saerepgeo.metrics.wrappers.evidence import Evidence, Figure
from saerepgeo.metrics.wrappers.null_tests import NullTest
from saerepgeo.metrics.wrappers.nulls import (
    GaussianNull,
    Null,
    PermutedItems,
    RandomDictionaries,
    RandomPairing,
)
from saerepgeo.metrics.wrappers.subsamples import SubsampleInterval

__all__ = [
    "Evidence",
    "Figure",
    "GaussianNull",
    "Null",
    "NullTest",
    "PermutedItems",
    "RandomDictionaries",
    "RandomPairing",
    "SubsampleInterval",
]
