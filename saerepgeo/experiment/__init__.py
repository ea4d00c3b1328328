"""Grids of runs, and the verdict on what they show."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import lazy_names

if TYPE_CHECKING:
    from saerepgeo.experiment.cells import Cell
    from saerepgeo.experiment.grid import Experiment
    from saerepgeo.experiment.runner import main, run_cells

__all__ = [
    "Cell",
    "Experiment",
    "main",
    "run_cells",
]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Cell": "cells",
        "Experiment": "grid",
        "main": "runner",
        "run_cells": "runner",
    },
)
