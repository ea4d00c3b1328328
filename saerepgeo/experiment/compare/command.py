"""`python -m saerepgeo compare`: reconstruction and geometry of many SAEs, one after the other."""

import gc
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from saerepgeo.data.module import ActivationDataModule
from saerepgeo.experiment.compare.across import AGAINST, across_saes
from saerepgeo.experiment.compare.finished import Finished
from saerepgeo.experiment.compare.listing import Listed, contents, listed_saes
from saerepgeo.experiment.compare.one_sae import Clouds, OneSAE, rows_of
from saerepgeo.experiment.compare.saebench import write_saebench
from saerepgeo.experiment.compare.settings import Comparison, parse
from saerepgeo.experiment.compare.table import printed, printed_across, wide_rows
from saerepgeo.files import DiskError, check_folder
from saerepgeo.report.files import save_figure, write_rows
from saerepgeo.report.results import COLUMNS, RESULTS
from saerepgeo.report.sae_panels import sae_panels

COMPARISON = "compare.csv"
Row = dict[str, Any]


def main(args: Sequence[str]) -> int:
    """Compare the SAEs of `--config FILE`; return 0, or 1 where an SAE could not be had.

    The language model is run once a hook; what belongs to the residuals alone is computed once for
    all SAEs of a hook. An SAE's rows are on disk as soon as they are there: run again, only what is
    not finished is computed. ValueError, before anything slow: bad settings, two SAEs of one name,
    an SAE of another model.
    """
    # Lightning 2.6 with torch 2.13; nothing the user could mend
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    comparison, settings, metrics = parse(args)
    probe = _data(settings, "blocks.0.hook_resid_pre")
    probe.setup("test")
    listed = listed_saes(comparison.saes, settings, probe.model_facts)
    check_folder(comparison.output)
    whole = [each for each in listed if each.broken is None]
    hooks = {each.hook_name: _data(settings, each.hook_name) for each in whole}
    stores = [_checked(data, comparison, metrics, len(hooks)) for data in hooks.values()]
    run = Run(comparison, listed, n_steps=len(whole) * (len(probe.prompts) + 1))
    for each in listed:
        if each.broken is not None:
            run.fail(each, each.broken)
    with _few_words():
        for store, hook in zip(stores, list(hooks), strict=True):
            run.of_hook(hooks.pop(hook), store, [each for each in whole if each.hook_name == hook])
            gc.collect()  # a trainer and its language model sit in cycles
    return run.conclude(settings)


@contextmanager
def _few_words() -> Iterator[None]:
    """Have Lightning not say for every SAE what devices there are."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _data(settings: dict[str, Any], hook_name: str) -> ActivationDataModule:
    return ActivationDataModule(**settings, hook_name=hook_name, test_with_padding=False)


def _checked(
    data: ActivationDataModule, comparison: Comparison, metrics: str, n_hooks: int
) -> Finished:
    """Return what is finished of a hook, once model, prompts and text are known to be good."""
    data.setup("test")
    data.prepare_data()
    finished = Finished(comparison, data, metrics)
    if n_hooks > 1:  # one model at a time: the check may have loaded it
        vars(data).pop("lm", None)
    return finished


class Run:
    """One run of a comparison: rows so far, in the order of the list, failures, progress.

    `n_steps` are those of all SAEs: a concept, or the held-out text, of one of them.
    """

    def __init__(self, comparison: Comparison, listed: Sequence[Listed], n_steps: int) -> None:
        self.comparison, self.listed = comparison, listed
        self.output = Path(comparison.output)
        self.of_saes: dict[str, list[Row]] = {}
        self.of_residuals: dict[str, list[Row]] = {}
        self.failed: list[str] = []
        self.n_steps, self.n_done, self.n_skipped = n_steps, 0, 0
        self._started = time.monotonic()

    def of_hook(
        self, data: ActivationDataModule, finished: Finished, saes: Sequence[Listed]
    ) -> None:
        """Take up what is finished of the SAEs of a hook, and compute the rest."""
        clouds = Clouds()
        waiting: list[tuple[Listed, str]] = []
        for each in saes:
            with self._left_out(each):
                own = contents(each.source, self.comparison.seed)
                rows = finished.rows(own, each.name)
                if rows is None:
                    waiting.append((each, own))
                    continue
                self._add(each, rows)
                print(f"{each.name}: finished before", flush=True)
            self.n_skipped += len(data.prompts) + 1
        for each, own in waiting:
            n_done = self.n_done
            with self._left_out(each):
                residuals = self.of_residuals.get(each.hook_name, [])
                rows = residuals + self._computed(each, data, clouds, not residuals)
                finished.keep(own, rows)
                self._add(each, rows)
                self._write(self.rows)
                continue
            self.n_skipped += len(data.prompts) + 1 - (self.n_done - n_done)

    @property
    def rows(self) -> list[Row]:
        """The rows so far: the residuals hook by hook, then SAE by SAE as listed."""
        own = (self.of_saes.get(each.name, []) for each in self.listed)
        return list(chain(*self.of_residuals.values(), *own))

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

    def conclude(self, settings: dict[str, Any]) -> int:
        """Write and print what is about all SAEs; return the exit status."""
        if rows := self.rows:
            wide = wide_rows(rows)
            rows += across_saes(rows, self.comparison.seed)
            self._write(rows)
            write_rows(self.output / COMPARISON, wide)
            write_saebench(self.listed, self.rows, self.comparison, settings)
            for other in AGAINST:
                save_figure(sae_panels(rows, other), self.output / f"metrics_by_{other}")
            print(printed(wide))
            print(printed_across(rows))
            print(f"{self.output / RESULTS}, {self.output / COMPARISON}")
        return int(bool(self.failed))

    def _computed(
        self, listed: Listed, data: ActivationDataModule, clouds: Clouds, with_residuals: bool
    ) -> list[Row]:
        module = OneSAE(listed, self.comparison, clouds, with_residuals)
        n_parts, seen = len(module.parts), dict[str, int]()

        def told(about: str) -> None:
            seen[about] = seen.get(about, 0) + 1
            if seen[about] == n_parts or len(seen) > len(data.prompts):
                self._tell(f"{listed.name}, {about}")

        return rows_of(module, data, self.comparison, told)

    def _tell(self, about: str) -> None:
        self.n_done += 1
        seconds = time.monotonic() - self._started
        n_left = self.n_steps - self.n_skipped - self.n_done
        left = round(seconds / self.n_done * n_left)
        done = self.n_done + self.n_skipped
        print(f"{about}: {done}/{self.n_steps}, {left // 60}:{left % 60:02} left", flush=True)

    def _write(self, rows: list[Row]) -> None:
        write_rows(self.output / RESULTS, rows, COLUMNS)
