"""Metrics around metrics: intervals from subsamples of prompts, and comparison with nulls."""

from saerepgeo.lazy import export_names
from saerepgeo.metrics.wrappers.evidence import Evidence as Evidence
from saerepgeo.metrics.wrappers.null_tests import NullTest as NullTest
from saerepgeo.metrics.wrappers.nulls import GaussianNull as GaussianNull
from saerepgeo.metrics.wrappers.nulls import Null as Null
from saerepgeo.metrics.wrappers.nulls import PermutedItems as PermutedItems
from saerepgeo.metrics.wrappers.nulls import RandomDictionaries as RandomDictionaries
from saerepgeo.metrics.wrappers.nulls import RandomPairing as RandomPairing
from saerepgeo.metrics.wrappers.subsamples import SubsampleInterval as SubsampleInterval
from saerepgeo.metrics.wrappers.wrapped import Figure as Figure

export_names(__name__)
