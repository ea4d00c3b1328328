"""Every bad input of the corpus ends in one line, a status, and nothing written."""

import importlib
import os
import random
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.faults import Fault, Place

import saerepgeo.__main__ as entry

FAMILIES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if path.stem not in ("faults", "conftest") and not path.stem.startswith("test_")
)
ROWS = [
    pytest.param(fault, id=f"{family}: {fault.name}")
    for family in FAMILIES
    for fault in importlib.import_module(f"faults.{family}").FAULTS
]


ASIDES = re.compile(r"INFO: |Loading weights|\s*$")
"""Lines on the screen that are no answer to a bad input."""


@contextmanager
def left_as_it_was() -> Iterator[None]:
    """Put back what a command sets for its whole process: other tests run in it."""
    environment, numbers = dict(os.environ), random.getstate()
    of_torch, of_numpy = torch.random.get_rng_state(), np.random.get_state()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        random.setstate(numbers)
        torch.random.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the status of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["saerepgeo", *arguments])
    with left_as_it_was():
        try:
            return entry.run()
        except SystemExit as stopped:
            return int(stopped.code or 0)


@pytest.mark.parametrize("fault", ROWS)
def test_one_line(
    fault: Fault,
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = list(fault.given(place))
    for name, value in fault.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(place.folder)
    before = sorted(place.folder.rglob("*"))
    status = run(arguments, monkeypatch)
    said = [line for line in capfd.readouterr().err.splitlines() if not ASIDES.match(line)]
    lines = [line for line in said if line.startswith("error: ")]
    assert status == fault.status, said
    assert len(said) == len(lines) == 1, said
    assert re.search(fault.says, lines[0]), lines[0]
    assert len(lines[0]) < 700, lines[0]
    assert lines[0].isprintable(), repr(lines[0])
    assert not (tmp_path / "out").exists(), "written before it was refused"
    assert sorted(place.folder.rglob("*")) == before, "written beside the user's files"
