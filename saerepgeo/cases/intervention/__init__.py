"""Case 3 on latents: clusters are moved, and the reconstruction error is measured."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.cases.intervention.artifacts import (
        InterventionArtifacts as InterventionArtifacts,
    )
    from saerepgeo.cases.intervention.interventions import Intervention as Intervention
    from saerepgeo.cases.intervention.interventions import intervene as intervene
    from saerepgeo.cases.intervention.paper_statistics import paper_statistic as paper_statistic

export_names(__name__)
