"""The tests notice small changes of the source: a few of those that `make test-mutants` makes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


FILES = ("dimension", "nulls")


@pytest.mark.slow
def test_the_tests_of_the_geometry_notice_mutants_of_it():
    """A survivor is mended by a test, or listed in .ci/equivalent_mutants.txt with the reason."""
    command = [sys.executable, str(ROOT / ".ci" / "mutants.py"), "--sample", "8", "--least", "100"]
    for name in FILES:
        command += ["--under", f"saerepgeo/geometry/{name}.py"]
        command += ["--tests", f"tests/geometry/test_{name}.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) of \1 killed \(100.0 %\)", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    assert int(found[1]) > 4, "of 8 mutants most are to be judged"


def test_what_is_listed_as_equivalent_is_in_the_source_and_has_a_reason():
    for row in (ROOT / ".ci" / "equivalent_mutants.txt").read_text(encoding="utf-8").splitlines():
        path, before, after, reason = row.split(" || ")
        lines = {line.strip() for line in (ROOT / path).read_text(encoding="utf-8").splitlines()}
        assert before in lines, f"no such line any more: {row}"
        assert before != after
        assert len(reason.split()) > 3, row
