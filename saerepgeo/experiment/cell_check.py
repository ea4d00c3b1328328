"""Refuse settings of the cells before the first one runs: by building a cell without running it."""

from typing import Any

from saerepgeo.cli import OneDeviceCLI
from saerepgeo.cli import main as run_command
from saerepgeo.experiment.grid import Experiment


class _Check(OneDeviceCLI):
    """`fit` that builds everything and stops before anything is loaded or written."""

    def fit(self, **_: Any) -> None:
        """Check what an experiment needs, and what `fit` would refuse first."""
        if self.trainer.max_steps < 1:
            raise ValueError(
                f"`trainer.max_steps` of a cell must be at least 1, got {self.trainer.max_steps}; "
                "set it in `settings` or `base`"
            )
        data: Any = self.datamodule
        if not data.hparams["heldout_items"] > 0:
            raise ValueError(
                "`data.init_args.heldout_items` must be above 0: the verdict is of those items"
            )
        data.prepare_data()
        data.setup("validate")


def check_cells(experiment: Experiment) -> None:
    """Raise ValueError, in one line, where `fit` would refuse the cells of an experiment."""
    run_command(experiment.command(experiment.cells[0], resumes=False), _Check)
