"""The tests notice small changes of the source: a few of those that `make test-mutants` makes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_tests_of_the_geometry_notice_mutants_of_it():
    """A survivor is mended by a test, or listed in .ci/equivalent_mutants.txt with the reason."""
    sample = ["--under", "saerepgeo/geometry", "--sample", "8", "--least", "100"]
    command = [sys.executable, str(ROOT / ".ci" / "mutants.py"), *sample]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[5-8] of [5-8] killed \(100.0 %\)", done.stdout, re.MULTILINE), done.stdout


def test_what_is_listed_as_equivalent_is_in_the_source_and_has_a_reason():
    for row in (ROOT / ".ci" / "equivalent_mutants.txt").read_text(encoding="utf-8").splitlines():
        path, before, after, reason = row.split(" || ")
        lines = {line.strip() for line in (ROOT / path).read_text(encoding="utf-8").splitlines()}
        assert before in lines, f"no such line any more: {row}"
        assert before != after
        assert len(reason.split()) > 3, row
