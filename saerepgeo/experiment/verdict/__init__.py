"""Whether separability moves the reconstruction error: the statistics of case 3's experiment."""

from saerepgeo.experiment.verdict.dose_response import (
    DoseResponse,
    Run,
    dose_response,
    holm,
    paired_difference,
    sign_flip_test,
)
from saerepgeo.experiment.verdict.judgement import Verdict, control_contrasts, judge

__all__ = [
    "DoseResponse",
    "Run",
    "Verdict",
    "control_contrasts",
    "dose_response",
    "holm",
    "judge",
    "paired_difference",
    "sign_flip_test",
]
