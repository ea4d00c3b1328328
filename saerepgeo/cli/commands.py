"""The command line: Lightning's, with our defaults."""

import inspect
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from saerepgeo.callbacks.checkpoints import WholeCheckpointIO
from saerepgeo.callbacks.interruption import exit_status
from saerepgeo.callbacks.processes import together
from saerepgeo.callbacks.resuming import Resumption, checkpoint_to_load
from saerepgeo.cli.checks import check_parsed, check_run, names_processes
from saerepgeo.cli.errors import OneLineErrors, nearest
from saerepgeo.cli.help import COMMANDS, CONFIGS, PROGRAM, SUBCOMMANDS, subcommand_kwargs
from saerepgeo.cli.logs import SaveSettings, keep_to_the_run, logged_to
from saerepgeo.files import is_url


class SettingsParser(OneLineErrors, LightningArgumentParser):
    """Lightning's parser; what it refuses it refuses in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what to give where no command, or no module, is given."""
        required = "the following arguments are required: "
        if self.exit_on_error and message.startswith(required):
            command, _, name = message.removeprefix(required).split(",")[0].partition(".")
            if name == "model":
                raise ValueError(
                    f"`model` is not given: add --config FILE; for {command} there are "
                    f"{', '.join(CONFIGS[command])}"
                )
        if "invalid choice" in message or 'expected "subcommand"' in message:
            names = [*SUBCOMMANDS, *COMMANDS]
            given = message.split("'")[1] if "'" in message else "none"
            near = nearest(given, names)
            hint = f": did you mean {near}?" if near else ""
            raise ValueError(f"the command must be one of {', '.join(names)}, got {given}{hint}")
        super().error(message, ex)

    def setting_names(self) -> list[str]:
        """Return the parser's own and those of the shipped modules."""
        from saerepgeo.cases import SAEFamilyModule, SeparabilityModule
        from saerepgeo.data import ActivationDataModule

        modules = [("data", ActivationDataModule), ("model", SeparabilityModule)]
        modules.append(("model", SAEFamilyModule))
        return super().setting_names() + [
            f"{key}.init_args.{name}"
            for key, module in modules
            for name in inspect.signature(module).parameters
            if self.exit_on_error
        ]


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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what `checkpoint_to_load` asks."""
        parser.add_argument("--resume_changed", type=bool, default=False)

    def _parse_ckpt_path(self) -> None:
        """Keep to the configuration given: the checkpoint's would silently override it."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Check what Lightning would check late."""
        super().parse_arguments(parser, args)
        check_parsed(self.config[self.config["subcommand"]])

    def before_fit(self) -> None:
        check_run(self.trainer, self.model, self.datamodule, "fit")

    def before_validate(self) -> None:
        check_run(self.trainer, self.model, self.datamodule, "validate")

    def before_test(self) -> None:
        check_run(self.trainer, self.model, self.datamodule, "test")

    @property
    def is_for_one_device(self) -> bool:
        """Whether `trainer.devices: auto` is one: more would each repeat what an analysis does."""
        return self.subcommand != "fit" and not names_processes(self._settings["trainer"])

    @property
    def _settings(self) -> Any:
        return self.config[str(self.subcommand)]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return the trainer; its checkpoints are whole, and know what they belong to."""
        if self._settings["trainer"]["devices"] == "auto" and self.is_for_one_device:
            kwargs["devices"] = 1
        trainer = super().instantiate_trainer(**kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        trainer.callbacks.insert(0, Resumption())  # type: ignore[attr-defined]
        return trainer

    def fit(self, **kwargs: Any) -> None:
        """Train, from the checkpoint that `ckpt_path` stands for."""
        kwargs = self._with_checkpoint(kwargs, "fit")
        with together(self.trainer), logged_to(self.trainer):
            self.trainer.fit(**kwargs)

    def validate(self, **kwargs: Any) -> None:
        """Validate, with the weights of the checkpoint that `ckpt_path` stands for."""
        kwargs = self._with_checkpoint(kwargs, "validate")
        with together(self.trainer), logged_to(self.trainer):
            self.trainer.validate(**kwargs)

    def test(self, **kwargs: Any) -> None:
        """Analyze, with the weights of the checkpoint that `ckpt_path` stands for."""
        kwargs = self._with_checkpoint(kwargs, "test")
        with together(self.trainer), logged_to(self.trainer):
            self.trainer.test(**kwargs)

    def _with_checkpoint(self, kwargs: dict[str, Any], stage: str) -> dict[str, Any]:
        path, parts = kwargs.pop("ckpt_path", None), (self.trainer, self.model, self.datamodule)
        if path is not None:
            is_changed = self.config[stage]["resume_changed"]
            options = is_changed, kwargs.get("weights_only"), stage
            path = checkpoint_to_load(path, *parts, *options)
        return kwargs | {"ckpt_path": path}


class OneDeviceCLI(GeometryCLI):
    """A command inside `experiment` or `reproduce`: processes that it started would begin these."""

    is_for_one_device = True

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return the trainer; ValueError where it is for several devices."""
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.world_size > 1:
            raise ValueError(
                f"`trainer.devices` must be one device here, as 1 or [0], got {trainer.world_size}:"
                " run `fit` or `test` itself on several; an experiment's `n_processes` take one "
                "each"
            )
        return trainer


def main(args: list[str] | None = None, cli_class: type[GeometryCLI] = GeometryCLI) -> int:
    """Run the command line; return the exit status.

    Raises ValueError for bad input: one line that says what was expected and what to do.
    """
    started = time.monotonic()
    keep_to_the_run()
    # Lightning 2.6 with torch 2.13; nothing the user could mend
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # ours are in order
    try:
        cli = cli_class(
            parser_class=SettingsParser,
            save_config_callback=SaveSettings,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # a name of its own: a run without logger saves it beside the user's files
            save_config_kwargs={"overwrite": True, "config_filename": "resolved_config.yaml"},
            parser_kwargs=PROGRAM | {name: subcommand_kwargs(name) for name in SUBCOMMANDS},
            args=args,
        )
    except MisconfigurationException as error:  # what Lightning says of the trainer's settings
        raise ValueError(" ".join(str(error).split())) from error
    status = exit_status(cli.trainer)
    if cli_class is GeometryCLI and not status:  # a cell of an experiment has no page of its own
        _show(cli.trainer, str(cli.subcommand), time.monotonic() - started)
    return status


def _show(trainer: Trainer, subcommand: str, seconds: float) -> None:
    """Write the page: of `test` beside its tables, of `fit` beside the runs that it logs."""
    from saerepgeo.cases.artifacts import CaseArtifacts
    from saerepgeo.cases.intervention.artifacts import InterventionArtifacts
    from saerepgeo.report.page import page_after

    if not trainer.is_global_zero:
        return
    # not `trainer.log_dir`, which waits for processes that may have ended
    log_dir = getattr(trainer.logger, "log_dir", None) or trainer.default_root_dir
    writers = CaseArtifacts, InterventionArtifacts
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    if subcommand == "test":
        folders = [each.dirpath for each in callbacks if isinstance(each, writers)]
    else:
        is_logged = subcommand == "fit" and trainer.logger is not None
        folders = [Path(log_dir).parent] if is_logged and not is_url(log_dir) else []
    if folders:
        page_after(folders[0], seconds, log_dir)
