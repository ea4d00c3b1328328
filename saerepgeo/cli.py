"""The command line: Lightning's, with our defaults."""

import warnings
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from saerepgeo.callbacks.interruption import exit_status

SUBCOMMANDS = ("fit", "validate", "test", "predict")
NO_ABBREVIATIONS = {"allow_abbrev": False}
"""`--trainer.max_step` is a mistake, not a way to say `max_steps`."""


class GeometryCLI(LightningCLI):
    """`python -m saerepgeo {fit,validate,test,predict} --config FILE`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Read checkpoints as tensors and plain values only: no code out of a file."""
        if "weights_only" in {action.dest for action in parser._actions}:
            parser.set_defaults({"weights_only": True})

    def _parse_ckpt_path(self) -> None:
        """Keep to the configuration given: the checkpoint's would silently override it."""


def main(args: list[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Raises:
        ValueError: bad input; one line that says what was expected and what to do.
    """
    # Lightning 2.6 with torch 2.13; nothing the user could mend
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    parser_kwargs: dict[str, Any] = {name: NO_ABBREVIATIONS for name in SUBCOMMANDS}
    cli = GeometryCLI(
        seed_everything_default=0,
        auto_configure_optimizers=False,
        # a name of its own: a run without logger saves it beside the user's files
        save_config_kwargs={"overwrite": True, "config_filename": "resolved_config.yaml"},
        parser_kwargs={**NO_ABBREVIATIONS, **parser_kwargs},
        args=args,
    )
    return exit_status(cli.trainer)
