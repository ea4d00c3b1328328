"""The command line: Lightning's with our defaults, and what it refuses in one line."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.cli.commands import GeometryCLI as GeometryCLI
    from saerepgeo.cli.commands import OneDeviceCLI as OneDeviceCLI
    from saerepgeo.cli.commands import main as main

export_names(__name__)
