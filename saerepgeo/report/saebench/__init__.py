"""Rows of the long table as SAEBench 0.6 writes results: a JSON an SAE and kind of evaluation."""

from saerepgeo.lazy import export_names
from saerepgeo.report.saebench.core import core_evaluation as core_evaluation
from saerepgeo.report.saebench.geometry import geometry_evaluations as geometry_evaluations
from saerepgeo.report.saebench.output import EvaluatedSAE as EvaluatedSAE
from saerepgeo.report.saebench.output import Evaluation as Evaluation
from saerepgeo.report.saebench.output import write_evaluations as write_evaluations

export_names(__name__)
