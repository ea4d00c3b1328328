"""The command line: Lightning's, with our defaults."""

import warnings
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from saerepgeo.callbacks.interruption import exit_status
from saerepgeo.cli_help import COMMANDS, PROGRAM, SUBCOMMANDS, subcommand_kwargs


class GeometryCLI(LightningCLI):
    """`python -m saerepgeo {fit,validate,test} --config FILE`."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's without `predict`, which would compute and leave nothing behind."""
        return {n: args for n, args in LightningCLI.subcommands().items() if n in SUBCOMMANDS}

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Say in the list of commands what each is for, and name those that are not Lightning's."""
        super()._add_subcommands(parser, **kwargs)
        action = next(a for a in parser._actions if a.dest == "subcommand")
        ours = {name: text for name, (_, text) in COMMANDS.items()}
        action._choices_actions = [  # type: ignore[attr-defined]
            action._ChoicesPseudoAction(name, (), text)  # type: ignore[attr-defined]
            for name, text in (SUBCOMMANDS | ours).items()
        ]

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Read checkpoints as tensors and plain values only: no code out of a file."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})
        return parser

    def _parse_ckpt_path(self) -> None:
        """Keep to the configuration given: the checkpoint's would silently override it."""


def main(args: list[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Raises ValueError for bad input: one line that says what was expected and what to do.
    """
    # Lightning 2.6 with torch 2.13; nothing the user could mend
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # ours are in order
    cli = GeometryCLI(
        seed_everything_default=0,
        auto_configure_optimizers=False,
        # a name of its own: a run without logger saves it beside the user's files
        save_config_kwargs={"overwrite": True, "config_filename": "resolved_config.yaml"},
        parser_kwargs=PROGRAM | {name: subcommand_kwargs(name) for name in SUBCOMMANDS},
        args=args,
    )
    return exit_status(cli.trainer)
