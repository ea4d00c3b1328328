"""What `--help` says: a screenful a command, of Lightning's many options those that matter."""

from argparse import Action, RawDescriptionHelpFormatter
from typing import Any

from jsonargparse import DefaultHelpFormatter

SUBCOMMANDS = {
    "fit": "fine-tune an SAE under a regularizer (case 3), or train new ones",
    "validate": "measure an SAE on held-out text, prompts and items",
    "test": "analyse an SAE: case 1, case 2, or case 3 by intervention",
}
COMMANDS = {
    "experiment": (
        "saerepgeo.experiment",
        "case 3's experiment: a grid of fits with controls, and its verdict",
    ),
    "reproduce": (
        "saerepgeo.experiment.reproduce",
        "cases 1 to 3 for chosen models and concepts, one closing table",
    ),
    "compare": (
        "saerepgeo.experiment.compare",
        "many SAEs: reconstruction and geometry of each, and figures across them",
    ),
    "report": ("saerepgeo.cli.report", "one page of what runs have found, report.html"),
    "cache": ("saerepgeo.cli.cache", "show or clear cached activations"),
}
"""Those that are not Lightning's: the module whose `main` runs each, and what it is for."""

_EXAMPLES = {
    "fit": (
        "fit --config configs/case3.yaml",
        "fit --config configs/case3.yaml --ckpt_path last",
        "fit --config configs/pretrain.yaml",
        "fit --config configs/pretrain_many.yaml",
    ),
    "validate": ("validate --config configs/case3.yaml",),
    "test": (
        "test --config configs/case1.yaml",
        "test --config configs/case2.yaml --config configs/models/gpt2-small.yaml",
        "test --config configs/case3.yaml --data.init_args.concepts '[months, days]'",
    ),
}
CONFIGS = {
    command: sorted({word for text in texts for word in text.split() if word.endswith(".yaml")})
    for command, texts in _EXAMPLES.items()
}
"""The shipped configurations by the command that they are for."""
_USAGE = "python -m saerepgeo {command} [--config FILE ...] [--OPTION VALUE ...]"
_TEXTS = {
    "config": "YAML file of settings, or a shipped one as case3; several: later over earlier ones",
    "print_config": "print all settings as YAML and stop; the way to start a config of one's own",
    "seed_everything": "seed of torch, NumPy and Python (default: %(default)s)",
    "trainer.accelerator": "cpu, gpu or auto (default: %(default)s)",
    "trainer.devices": "how many, or a list of which; -1: all; auto: all for `fit`, else one "
    "unless a strategy is given (default: %(default)s)",
    "trainer.num_nodes": "machines (default: %(default)s)",
    "trainer.strategy": "auto, ddp, or a class of lightning.pytorch.strategies "
    "(default: %(default)s)",
    "trainer.precision": "of training and validating: 32-true or bf16-mixed; `test` computes in "
    "float32, the language model in data.init_args.lm_dtype (default: %(default)s)",
    "trainer.enable_progress_bar": "whether to show one (default: %(default)s)",
    "model.help": "show the settings of a module and stop",
    "model": "the module by its class path, or one of its settings: --model.init_args.NAME VALUE",
    "data.help": "show the settings of the data and stop",
    "data": "the data by its class path, or one of its settings: --data.init_args.NAME VALUE",
    "subcommand": "",
    "ckpt_path": "checkpoint to go on from, a path or `last`, the newest whole one",
    "resume_changed": "go on from a checkpoint of other settings as well (default: %(default)s)",
}
_TEXTS_OF_FIT = _TEXTS | {
    "trainer.max_steps": "steps to take in all (default: %(default)s)",
    "trainer.max_time": "stop after DD:HH:MM:SS (default: %(default)s)",
    "trainer.val_check_interval": "steps between validations (default: %(default)s)",
    "trainer.gradient_clip_val": "largest norm of the gradient (default: %(default)s)",
}
_HEADINGS = {
    "Customize every aspect": "trainer, as far as it matters here (every argument of Lightning's "
    "Trainer works, as --trainer.NAME)",
    "<class 'lightning": "module",
    "A DataModule": "data",
    "Runs the full": "checkpoint",
    "Perform one evaluation": "checkpoint",
    "subcommands": "commands",
}


class ShortHelp(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Shows the options that `_TEXTS` explains and leaves the others, which work, to their docs."""

    def add_argument(self, action: Action) -> None:
        if action.dest == "help" or action.dest in self._texts():
            super().add_argument(action)

    def start_section(self, heading: str | None) -> None:
        known = [text for start, text in _HEADINGS.items() if (heading or "").startswith(start)]
        super().start_section(known[0] if known else heading)

    def _texts(self) -> dict[str, str]:
        return _TEXTS_OF_FIT if self._prog.endswith(" fit") else _TEXTS

    def _get_help_string(self, action: Action) -> str:
        own = self._texts().get(action.dest)
        return super()._get_help_string(action) if own is None else own


_PARSER: dict[str, Any] = {"formatter_class": ShortHelp, "allow_abbrev": False}
"""`--trainer.max_step` is a mistake, not a way to say `max_steps`."""
PROGRAM = _PARSER | {
    "prog": "python -m saerepgeo",
    "usage": _USAGE.format(command="COMMAND"),
    "description": "Measure how a sparse autoencoder reorganises the geometry of a language\n"
    "model's residual stream, and fine-tune it under geometric constraints.\n\n"
    "Settings come from YAML files, later files over earlier ones, and options over files:\n"
    "  python -m saerepgeo test --config configs/case1.yaml --data.init_args.concepts '[days]'",
}
"""What the parser of the whole program is made with."""


def subcommand_kwargs(name: str) -> dict[str, Any]:
    """Return what the parser of a subcommand is made with: usage, description, examples."""
    others = {"test": ["StratificationModule", "StructureModule"], "fit": ["SAEFamilyModule"]}
    modules = [*others.get(name, []), "SeparabilityModule"]
    helps = "\n".join(f"  --model.help saerepgeo.{m}" for m in modules)
    examples = "\n".join(f"  python -m saerepgeo {example}" for example in _EXAMPLES[name])
    text = SUBCOMMANDS[name]
    return _PARSER | {
        "usage": _USAGE.format(command=name),
        "description": f"{text[0].upper()}{text[1:]}.\n\n{examples}",
        "epilog": "The settings of the modules and of the data, each with what it does:\n"
        f"{helps}\n  --data.help saerepgeo.ActivationDataModule",
    }
