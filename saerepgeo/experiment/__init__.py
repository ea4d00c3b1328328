"""Grids of runs, and the verdict on what they show."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.experiment.cells import Cell as Cell
    from saerepgeo.experiment.grid import Experiment as Experiment
    from saerepgeo.experiment.runner import main as main
    from saerepgeo.experiment.runner import run_cells as run_cells

export_names(__name__)
