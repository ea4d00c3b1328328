"""The command line: Lightning's, with our defaults."""

import warnings
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from saerepgeo.callbacks.interruption import exit_status

_OPTIONS_OF = (
    "The options of a module, a data module or a callback: --model.help CLASS, --data.help CLASS, "
    "e.g. --model.help saerepgeo.modules.{module}."
)
SUBCOMMANDS = {
    "fit": "Fine-tune an SAE (configs/case3.yaml), or train one (configs/pretrain.yaml). "
    + _OPTIONS_OF.format(module="separability.SeparabilityModule"),
    "validate": "Measure an SAE on held-out text, prompts and items, without training it. "
    + _OPTIONS_OF.format(module="separability.SeparabilityModule"),
    "test": "Analyse an SAE: configs/case1.yaml, case2.yaml, and case3.yaml's intervention. "
    + _OPTIONS_OF.format(module="stratification.StratificationModule"),
    "predict": "Run an SAE over held-out text and return reconstructions and latents. "
    + _OPTIONS_OF.format(module="separability.SeparabilityModule"),
}
NO_ABBREVIATIONS = {"allow_abbrev": False}
"""`--trainer.max_step` is a mistake, not a way to say `max_steps`."""
PROGRAM = {
    "prog": "python -m saerepgeo",
    "description": "Measure how a sparse autoencoder reorganises the geometry of a language "
    "model's residual stream (test), or fine-tune one under geometric constraints (fit). "
    "Settings come from --config files, later ones over earlier ones, and from options over "
    "files: python -m saerepgeo test --config configs/case1.yaml --data.lm=gpt2",
    "epilog": "Beside these: python -m saerepgeo {experiment,reproduce,cache} --help",
}


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
    parser_kwargs: dict[str, Any] = {
        name: {**NO_ABBREVIATIONS, "description": text} for name, text in SUBCOMMANDS.items()
    }
    cli = GeometryCLI(
        seed_everything_default=0,
        auto_configure_optimizers=False,
        # a name of its own: a run without logger saves it beside the user's files
        save_config_kwargs={"overwrite": True, "config_filename": "resolved_config.yaml"},
        parser_kwargs={**PROGRAM, **NO_ABBREVIATIONS, **parser_kwargs},
        args=args,
    )
    return exit_status(cli.trainer)
