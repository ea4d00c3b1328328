"""`python -m saerepgeo compare`: reconstruction and geometry of many SAEs."""

import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

from saerepgeo.data.cache import holding
from saerepgeo.experiment.compare.across import AGAINST, across_saes
from saerepgeo.experiment.compare.finished import Finished
from saerepgeo.experiment.compare.listing import Listed, contents, listed_saes
from saerepgeo.experiment.compare.one_sae import rows_of
from saerepgeo.experiment.compare.saebench import write_saebench
from saerepgeo.experiment.compare.settings import Comparison, parse
from saerepgeo.experiment.compare.shared import Work, shared
from saerepgeo.experiment.compare.table import printed, printed_across, wide_rows
from saerepgeo.experiment.engine import ended_calls, only_run
from saerepgeo.files import DiskError, check_folder
from saerepgeo.report.files import save_figure, write_rows
from saerepgeo.report.page import page_after
from saerepgeo.report.results import COLUMNS, RESULTS
from saerepgeo.report.sae_panels import sae_panels

COMPARISON = "compare.csv"
Row = dict[str, Any]


def main(args: Sequence[str]) -> int:
    """Compare the SAEs of `--config FILE`; return 0, or 1 where an SAE could not be had.

    One pass of the language model reads all hooks; what belongs to the residuals alone is computed
    once for all SAEs of a hook. An SAE's rows are on disk as soon as they are there: run
    again, only what is not finished is computed. ValueError, before anything slow: bad settings,
    two SAEs of one name, an SAE of another model.
    """
    comparison, settings, metrics = parse(args)
    with _few_words(), holding():
        work, listed = _checked(comparison, settings)
        with only_run(comparison.output):
            try:
                run = Run(work, listed, metrics)
                run.of_saes_listed()
            finally:
                shared.cache_clear()
            return run.conclude()


def _checked(comparison: Comparison, settings: dict[str, Any]) -> tuple[Work, list[Listed]]:
    """Return what is to be done, once SAEs, model, prompts and text are known to be good."""
    facts = Work(comparison, settings, ()).data("blocks.0.hook_resid_pre").model_facts
    listed = listed_saes(comparison.saes, settings, facts)
    check_folder(comparison.output)
    hooks = dict.fromkeys(each.hook_name for each in listed if each.broken is None)
    work = Work(comparison, settings, tuple(hooks))
    if hooks:
        data = shared(work).of_all
        data.prepare_data()
        _ = data.heldout_contexts()  # read by every SAE: a text that cannot be had is refused here
    return work, listed


@contextmanager
def _few_words() -> Iterator[None]:
    """Have Lightning not say for every SAE what devices there are."""
    # Lightning 2.6 with torch 2.13; nothing the user could mend
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def rows_elsewhere(*call: Any) -> list[Row]:
    """Return the rows of an SAE, in a process of the engine's."""
    with _few_words():
        return rows_of(*call)


class Run:
    """One run of a comparison: rows so far, in the order of the list, failures, progress.

    A step of the progress is a concept, or the held-out text, of an SAE.
    """

    def __init__(self, work: Work, listed: Sequence[Listed], metrics: str) -> None:
        self.work, self.listed, at_hooks = work, listed, shared(work).data
        self.finished = {
            hook: Finished(work.comparison, data, metrics) for hook, data in at_hooks.items()
        }
        self.output = work.comparison.output.rstrip("/")
        self.of_saes: dict[str, list[Row]] = {}
        self.of_residuals: dict[str, list[Row]] = {}
        self.failed: list[str] = []
        self.n_each = 1 + max((len(data.prompts) for data in at_hooks.values()), default=0)
        self.n_steps = self.n_each * sum(each.broken is None for each in listed)
        self.n_told = Counter[str]()
        self.n_done, self.n_skipped = 0, 0
        self._started = time.monotonic()

    def of_saes_listed(self) -> None:
        """Take up what is finished, and compute the rest hook by hook."""
        waiting: list[tuple[Listed, str]] = []
        for each in self.listed:
            if each.broken is not None:
                self.fail(each, each.broken)
                continue
            with self._left_out(each):
                own = contents(each.source, self.work.comparison.seed)
                rows = self.finished[each.hook_name].rows(own, each.name)
                if rows is None:
                    waiting.append((each, own))
                    continue
                self._add(each, rows)
                print(f"{each.name}: finished before", flush=True)
            self.n_skipped += self.n_each
        if waiting:
            shared(self.work).read_ahead()
            self._compute(sorted(waiting, key=lambda w: self.work.hook_names.index(w[0].hook_name)))

    def _compute(self, waiting: Sequence[tuple[Listed, str]]) -> None:
        comparison = self.work.comparison
        if comparison.uses_ray:  # what the processes read is in the cache
            shared.cache_clear()

        def calls() -> Iterator[tuple[Any, ...]]:
            for listed, _ in waiting:
                known = self.of_residuals.get(listed.hook_name, [])
                told = () if comparison.uses_ray else (partial(self._tell, listed.name),)
                yield listed, self.work, known, *told

        function = rows_elsewhere if comparison.uses_ray else rows_of
        for ended in ended_calls(function, calls(), comparison):
            listed, own = waiting[ended.number]
            with self._left_out(listed):
                if ended.error is not None:
                    raise ended.error
                self.finished[listed.hook_name].keep(own, ended.value)
                self._add(listed, ended.value)
                self._write(self.rows)
                if left := self.n_each - self.n_told[listed.name]:
                    self._tell(listed.name, "done", left)
                continue
            self.n_skipped += self.n_each - self.n_told[listed.name]

    @property
    def rows(self) -> list[Row]:
        """The rows so far: the residuals hook by hook, then SAE by SAE as listed."""
        residuals = (self.of_residuals.get(hook, []) for hook in self.work.hook_names)
        own = (self.of_saes.get(each.name, []) for each in self.listed)
        return list(chain(*residuals, *own))

    def _add(self, listed: Listed, rows: list[Row]) -> None:
        self.of_residuals[listed.hook_name] = [row for row in rows if not row["sae"]]
        self.of_saes[listed.name] = [row for row in rows if row["sae"]]

    @contextmanager
    def _left_out(self, listed: Listed) -> Iterator[None]:
        """Go on after an SAE that cannot be used; not where the results cannot be written."""
        try:
            yield
        except DiskError:
            raise
        except (ValueError, OSError, RuntimeError) as error:
            self.fail(listed, str(error))

    def fail(self, listed: Listed, reason: str) -> None:
        """Say in one line why an SAE is left out."""
        self.failed.append(listed.name)
        line = " ".join(reason.split()) or "it cannot be used"
        print(f"error: SAE {listed.name} is left out: {line}", file=sys.stderr, flush=True)

    def conclude(self) -> int:
        """Write and print what is about all SAEs; return the exit status."""
        if rows := self.rows:
            wide = wide_rows(rows)
            groups = {x.name: x.source.group for x in self.listed if x.source.group is not None}
            rows += across_saes(rows, groups, self.work.comparison.seed)
            self._write(rows)
            write_rows(f"{self.output}/{COMPARISON}", wide)
            write_saebench(self.listed, self.rows, self.work.comparison, self.work.settings)
            for other in AGAINST:
                save_figure(sae_panels(rows, other), f"{self.output}/metrics_by_{other}")
            print(printed(wide))
            print(printed_across(rows))
            print(f"{self.output}/{RESULTS}, {self.output}/{COMPARISON}")
            page_after(self.output, time.monotonic() - self._started)
        return int(bool(self.failed))

    def _tell(self, name: str, about: str, n_steps: int = 1) -> None:
        self.n_told[name] += n_steps
        self.n_done += n_steps
        seconds = time.monotonic() - self._started
        n_left = self.n_steps - self.n_skipped - self.n_done
        left = round(seconds / self.n_done * n_left)
        done = self.n_done + self.n_skipped
        print(
            f"{name}, {about}: {done}/{self.n_steps}, {left // 60}:{left % 60:02} left", flush=True
        )

    def _write(self, rows: list[Row]) -> None:
        write_rows(f"{self.output}/{RESULTS}", rows, COLUMNS)
