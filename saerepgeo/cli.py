"""The command line: Lightning's, with our defaults."""

from lightning.pytorch.cli import LightningCLI


class GeometryCLI(LightningCLI):
    """`python -m saerepgeo {fit,validate,test,predict} --config FILE`."""

    def _parse_ckpt_path(self) -> None:
        """Keep to the configuration given: the checkpoint's would silently override it."""


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Raises:
        ValueError: bad input; one line that says what was expected and what to do.
    """
    GeometryCLI(
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"allow_abbrev": False},
        args=args,
    )
