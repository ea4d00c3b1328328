"""Case 3 on latents: clusters are moved, and the reconstruction error is measured."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.cases.intervention.artifacts import InterventionArtifacts
    from saerepgeo.cases.intervention.interventions import Intervention, intervene
    from saerepgeo.cases.intervention.paper_statistic import paper_statistic

__all__ = ["Intervention", "InterventionArtifacts", "intervene", "paper_statistic"]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Intervention": "interventions",
        "InterventionArtifacts": "artifacts",
        "intervene": "interventions",
        "paper_statistic": "paper_statistic",
    },
)
