"""Case 3 by training: a grid of fine-tuning runs with matched controls, and its verdict."""

from saerepgeo.experiment.grid import Cell, Experiment
from saerepgeo.experiment.runner import main, run_cells

__all__ = ["Cell", "Experiment", "main", "run_cells"]
