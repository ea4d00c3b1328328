"""Whether separability moves the reconstruction error: the statistics of case 3's experiment."""

from saerepgeo.experiment.verdict.dose_response import DoseResponse as DoseResponse
from saerepgeo.experiment.verdict.dose_response import Run as Run
from saerepgeo.experiment.verdict.dose_response import dose_response as dose_response
from saerepgeo.experiment.verdict.dose_response import holm as holm
from saerepgeo.experiment.verdict.dose_response import paired_difference as paired_difference
from saerepgeo.experiment.verdict.dose_response import sign_flip_test as sign_flip_test
from saerepgeo.experiment.verdict.judgement import Verdict as Verdict
from saerepgeo.experiment.verdict.judgement import control_contrasts as control_contrasts
from saerepgeo.experiment.verdict.judgement import judge as judge
from saerepgeo.lazy import export_names

export_names(__name__)
