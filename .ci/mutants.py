"""Change the source in one place at a time, and see whether the tests of its area notice.

    python .ci/mutants.py [--sample N] [--under PREFIX]... [--tests FILE]... [--least PER_CENT]

cosmic-ray makes the mutants; no file is changed. torch and the rest are imported once; each mutant
is a forked child whose imports read the mutated source, and which runs those tests of its area
that call the changed function. A child that hangs is killed, and so is its mutant. Status 1 when
of those that are not in equivalent_mutants.txt fewer than `--least` per cent are killed.
"""

import argparse
import ast
import contextlib
import gc
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import hypothesis
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).parents[1]
PACKAGE = f"{ROOT}/saerepgeo/"
EQUIVALENT = ROOT / ".ci" / "equivalent_mutants.txt"
SECONDS = 60
"""A test's time. The slowest takes a third of it unchanged on a busy core."""

AREAS = {
    "saerepgeo/geometry": "tests/geometry",
    "saerepgeo/metrics": "tests/metrics",
    "saerepgeo/cases/separability/losses.py": "tests/cases/separability",
    "saerepgeo/cases/intervention/displacement.py": "tests/cases/intervention",
    "saerepgeo/data/stream.py": "tests/data",
    "saerepgeo/sae": "tests/sae",
    "saerepgeo/experiment/verdict": "tests/experiment/verdict",
}
LEFT_OUT = (
    "/__init__.py",  # names only
    "sae/sparse/kernels.py",  # Triton compiles its own copy of the source
    "sae/parallel/",  # runs in processes of its own, which import the unchanged source
)
STARTS_PROCESSES = re.compile(r"subprocess|Popen|\bspawn\b|_process\b|pytest\.mark\.gpu")

BINARY = "Add_Sub Sub_Add Mul_Div Div_Mul Mul_Add FloorDiv_Mul Mod_FloorDiv Pow_Mul BitOr_BitAnd"
COMPARED = "Lt_LtE LtE_Lt Gt_GtE GtE_Gt Eq_NotEq NotEq_Eq Lt_Gt Gt_Lt LtE_GtE GtE_LtE Is_IsNot"
OTHERS = """
    NumberReplacer ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr ReplaceOrWithAnd
    ReplaceUnaryOperator_USub_UAdd ReplaceUnaryOperator_Delete_Not AddNot ZeroIterationForLoop
    ReplaceUnaryOperator_Delete_Invert ReplaceBreakWithContinue ReplaceContinueWithBreak
"""
OPERATORS = [
    *(f"ReplaceBinaryOperator_{name}" for name in f"{BINARY} BitAnd_BitOr".split()),
    *(f"ReplaceComparisonOperator_{name}" for name in f"{COMPARED} IsNot_Is".split()),
    *OTHERS.split(),
]
"""Each change a likely slip; most of cosmic-ray's others, such as `+` to `<<`, only raise."""


ONCE = """
    torch lightning torchmetrics scipy.stats scipy.cluster.hierarchy sklearn.cluster sae_lens ot
    beartype.door hypothesis.strategies
"""


class Mutant(NamedTuple):
    path: str
    line: int
    before: str
    after: str
    source: str
    function: str
    """Path and qualified name of the function that is changed, or the path alone."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.path, self.before, self.after


def without_effect(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the annotations of a file and the words of its errors, which no result depends on."""
    for node in ast.walk(tree):
        for field in ("annotation", "returns", "exc"):
            if (found := getattr(node, field, None)) is not None:
                yield found


def places(source: str) -> Iterator[tuple[str, int, int, int]]:
    """Yield operator, number of its place in the file, line and column of all mutants of a file."""
    spans = [
        ((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset))
        for a in without_effect(ast.parse(source))
    ]
    nodes, lines = list(ast_nodes(get_ast(source))), source.splitlines()
    for name in OPERATORS:
        positions = get_operator(f"core/{name}")().mutation_positions
        for n, ((line, column), end) in enumerate(p for node in nodes for p in positions(node)):
            is_mark = name.startswith("ReplaceBinary") and lines[end[0] - 1][end[1] :][:1] == ","
            if not is_mark and not any(first <= (line, column) < last for first, last in spans):
                yield name, n, line, column


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[range, str]]:
    """Yield the lines and the qualified name of every function, the innermost last."""
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{prefix}{child.name}."
        if isinstance(child, ast.FunctionDef):
            yield range(child.lineno, (child.end_lineno or 0) + 1), f"{prefix}{child.name}"
            inner += "<locals>."
        yield from functions(child, inner)


def mutated(path: str, operator: str, place: int) -> Mutant | None:
    """Return the mutant, or None where it is the source still or no Python."""
    source = (ROOT / path).read_text(encoding="utf-8")
    text = mutate_code(source, get_operator(f"core/{operator}")(), place)
    with contextlib.suppress(SyntaxError):
        compile(text, path, "exec")
        lines = enumerate(zip(source.splitlines(), text.splitlines(), strict=True), 1)
        for line, (before, after) in lines:
            if before != after:
                at = [name for span, name in functions(ast.parse(source)) if line in span]
                function = ":".join([path, *at[-1:]])
                return Mutant(path, line, before.strip(), after.strip(), text, function)
    return None


def sample(prefixes: list[str], size: int, seed: int) -> list[Mutant]:
    """Draw by hash, so that an edit elsewhere leaves the draw as it is."""
    found = []
    for area in AREAS:
        for file in [ROOT / area] if area.endswith(".py") else sorted((ROOT / area).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            if path.startswith(tuple(prefixes)) and not any(part in path for part in LEFT_OUT):
                source = file.read_text(encoding="utf-8")
                lines = source.splitlines()
                here: Counter[tuple[str, ...]] = Counter()  # a number becomes two others
                for name, n, line, column in places(source):
                    key = name, lines[line - 1].strip(), str(column)
                    here[key] += 1
                    text = repr((seed, path, *key, here[key]))
                    found.append((hashlib.sha256(text.encode()).digest(), path, name, n))
    drawn = (mutated(*place) for _, *place in sorted(found))
    return list(islice((mutant for mutant in drawn if mutant), size))


def import_once() -> None:
    """Import what takes seconds, never saerepgeo: its imports are what a mutant changes."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    os.environ |= {"JSONARGPARSE_DEPRECATION_WARNINGS": "off", "HYPOTHESIS_PROFILE": "mutants"}
    for name in ONCE.split():
        importlib.import_module(name)
    # a failure is enough: its least example would take minutes
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    settings = {"derandomize": True, "database": None, "phases": phases}
    hypothesis.settings.register_profile("mutants", **settings)
    hypothesis.settings.load_profile("mutants")
    gc.freeze()


def read_in_place(path: str, source: str) -> None:
    """Let this process import `source` for the file, through whatever import hook stands there."""
    target, read = str(ROOT / path), SourceFileLoader.get_data

    def get_data(self: SourceFileLoader, wanted: str) -> bytes:
        if self.path != target:
            return read(self, wanted)
        if wanted != target:
            raise OSError("the byte code of the unchanged file")
        return source.encode()

    SourceFileLoader.get_data = get_data  # type: ignore[method-assign]
    sys.dont_write_bytecode = True


class Witness:
    """A plugin of pytest that writes which tests call each function of the package."""

    def __init__(self, file: Path) -> None:
        self.file, self.called = file, defaultdict[str, dict[str, None]](dict)

    def watched(self, test: str) -> Iterator[None]:
        def note(frame: FrameType, event: str, _: Any) -> None:
            name = frame.f_code.co_filename
            if event == "call" and name.startswith(PACKAGE):
                path = name[len(PACKAGE) - len("saerepgeo/") :]
                self.called[f"{path}:{frame.f_code.co_qualname}"][test] = None
                self.called[path][test] = None

        sys.setprofile(note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        # a fixture is made for the first of its tests and serves all of the file
        return (yield from self.watched(item.nodeid.split("::")[0] + "::"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self.watched(item.nodeid))

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps({k: list(v) for k, v in self.called.items()}))


class Chosen:
    """A plugin of pytest that keeps given tests, and ends the process where one takes too long."""

    def __init__(self, tests: Iterable[str]) -> None:
        self.tests = set(tests)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        whole = {test for test in self.tests if test.endswith("::")}
        items[:] = [i for i in items if i.nodeid in self.tests or f"{i.location[0]}::" in whole]

    def pytest_runtest_logstart(self) -> None:
        signal.alarm(SECONDS)


def passes(tests: Iterable[str], plugin: Any, scratch: Path, mutant: Mutant | None = None) -> bool:
    """Return whether the tests pass in a forked child; a child that hangs or crashes does not."""
    if child := os.fork():
        try:
            _, status = os.waitpid(child, 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what it has started
        code = os.waitstatus_to_exitcode(status)
        if code in (3, 4):
            raise RuntimeError(f"pytest did not start: {(scratch / 'log').read_text()}")
        return code in (0, 5)  # 5: no tests there
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log = os.open(scratch / "log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        if mutant:
            signal.alarm(SECONDS)
            read_in_place(mutant.path, mutant.source)
        # a test's own processes are to read the mutant too, and as new ones they take no warning
        # for an error
        forked = multiprocessing.get_context("fork")
        sys.modules["torch.multiprocessing"].get_context = lambda method=None: forked
        os.register_at_fork(after_in_child=warnings.resetwarnings)
        options = ["-xq", "-m", "not slow and not gpu", "-p", "no:cacheprovider"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options += [f"--basetemp={scratch / 'tests'}", *tests]
        os._exit(pytest.main(options, plugins=[plugin]))
    finally:
        os._exit(3)


def tests_of(area: str, folders: list[str], scratch: Path) -> dict[str, list[str]]:
    """Return which tests call each function, once they have passed on the unchanged source."""
    files = [p for f in folders for p in [ROOT / f, *sorted((ROOT / f).rglob("test_*.py"))]]
    files = [p for p in files if p.is_file() and not STARTS_PROCESSES.search(p.read_text())]
    if not passes([*map(str, files), area], Witness(scratch / "called"), scratch):
        log = (scratch / "log").read_text()
        raise RuntimeError(f"the tests of the unchanged source fail:\n{log}")
    return json.loads((scratch / "called").read_text())


def is_killed(mutant: Mutant, called: dict[str, list[str]], scratch: Path) -> bool:
    tests = called.get(mutant.function, [])
    files = {test.split("::")[0]: None for test in tests}
    mirror = f"test_{Path(mutant.path).name}"
    given = sorted(files, key=lambda file: Path(file).name != mirror)
    return bool(given) and not passes(given, Chosen(tests), scratch, mutant)


def run(
    mutants: list[Mutant], tests: list[str], equivalent: set[tuple[str, ...]], least: float
) -> int:
    counts: dict[str, Counter[str]] = {}
    called: dict[str, dict[str, list[str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for n, mutant in enumerate(mutants, 1):
            area = next(area for area in AREAS if mutant.path.startswith(area))
            if area not in called:
                called[area] = tests_of(area, tests or [AREAS[area]], scratch)
            began = time.monotonic()
            outcome = "equivalent"
            if mutant.key not in equivalent:
                outcome = "killed" if is_killed(mutant, called[area], scratch) else "SURVIVED"
            counts.setdefault(mutant.path, Counter())[outcome] += 1
            took = f"{time.monotonic() - began:3.0f} s  {mutant.path}:{mutant.line}"
            change = f"{mutant.before}  ->  {mutant.after}"
            print(f"{n:4} {outcome:10} {took}  {change}", flush=True)
    total = sum(counts.values(), Counter[str]())
    for path, count in sorted(counts.items()):
        print(f"{path}: {', '.join(f'{v} {k}' for k, v in sorted(count.items()))}")
    judged = total["killed"] + total["SURVIVED"]
    rate = 100 * total["killed"] / max(judged, 1)
    print(f"{total['killed']} of {judged} killed ({rate:.1f} %), {total['equivalent']} equivalent")
    return int(rate < least)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=250)
    parser.add_argument("--skip", type=int, default=0, help="of the sample, to go on after a stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--under", action="append", default=[], help="paths that start so only")
    parser.add_argument("--tests", action="append", default=[], help="these only, not the area's")
    parser.add_argument("--line", help="only mutants whose changed line contains this")
    parser.add_argument("--least", type=float, default=90.0, help="per cent to be killed")
    given = parser.parse_args()
    os.chdir(ROOT)
    drawn = sample(given.under or [""], given.sample, given.seed)[given.skip :]
    drawn = [m for m in drawn if not given.line or given.line in m.before]
    rows = [line.split(" || ") for line in EQUIVALENT.read_text(encoding="utf-8").splitlines()]
    import_once()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return run(drawn, given.tests, {tuple(row[:3]) for row in rows}, given.least)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # past the farewells of what was imported
