"""`python -m saerepgeo report [RUN…]`: one page of what runs have found."""

from collections.abc import Sequence
from pathlib import Path

from saerepgeo.cli.errors import OneLineErrors
from saerepgeo.report.page import PAGE, write_page

OUTPUTS = Path("outputs")


def main(args: Sequence[str]) -> int:
    """Write the page of folders, by default of all under `outputs`; return 0.

    ValueError: a folder that is not there, nothing to show, a file that cannot be read.
    """
    parser = OneLineErrors(
        prog="python -m saerepgeo report",
        description="Write one page, report.html, of what runs have found: it opens from the disk, "
        "in any browser, and loads nothing.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of runs; all of outputs/")
    parser.add_argument("--output", help="the file to write; by default beside what it is about")
    settings = parser.parse_args(list(args))
    folders = [Path(run) for run in settings.runs or ()]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"`RUN` must be the folder of a run, got {folder}, which is none")
    parent = folders[0] if len(folders) == 1 else OUTPUTS
    if not folders and OUTPUTS.is_dir():
        folders = sorted(path for path in OUTPUTS.iterdir() if path.is_dir())
    written = write_page(folders, Path(settings.output or parent / PAGE))
    if written is None:
        names = ", ".join(map(str, folders)) or f"{OUTPUTS}/"
        raise ValueError(f"`RUN` must be folders that hold results, got {names}: run a case first")
    print(written)
    return 0
