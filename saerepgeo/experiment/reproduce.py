"""`python -m saerepgeo reproduce`: cases 1–3 for the chosen models, and one closing table."""

import argparse
import logging
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import yaml

from saerepgeo.cases.analysis import model_name
from saerepgeo.experiment.grid import read_config
from saerepgeo.report.files import read_rows

DEFAULT_OUTPUT = "outputs"
"""Where the shipped configs write."""
WIDTH = 100
"""Characters of an outcome in the closing table."""
SIGNALLED = 128
"""Exit status of a process that a signal ended, less the signal's number."""


class Outcome(NamedTuple):
    """How one case went for one model."""

    model: str
    case: int
    seconds: float
    error: str | None
    """One line, or None where all went well."""
    findings: list[str]
    status: int = 0
    """Above 128, a signal ended it."""


def main(args: Sequence[str]) -> int:
    """Run the cases; return 0 if all went well, 1 where a model or a case could not be had.

    A signal ends the run after the table of what was done, with status 128 + its number.

    Raises:
        ValueError: the configs are not found, or an unknown model is named.
    """
    chosen = _parser().parse_args(list(args))
    configs = _config_folder(chosen.configs)
    overlays = [_overlay(configs, name) for name in chosen.models]
    outcomes: list[Outcome] = []
    for overlay, case in product(overlays, chosen.cases):
        print(f"{overlay.stem}, case {case} …", flush=True)
        outcome = _run(configs, overlay, case, chosen.concepts, chosen.output)
        if outcome.error is not None:
            is_news = outcome.error not in [before.error for before in outcomes]
            said = outcome.error if is_news else "the same"
            print(f"{overlay.stem}, case {case}: {said}", file=sys.stderr)
        outcomes.append(outcome)
        if outcome.status > SIGNALLED:
            break
    print(closing_table(outcomes))
    stopped = [outcome.status for outcome in outcomes if outcome.status > SIGNALLED]
    return stopped[0] if stopped else int(any(outcome.error for outcome in outcomes))


def closing_table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as lines of text: one a model and case, its findings below."""
    lines = [f"{'model':<24}{'case':>5}{'seconds':>9}  outcome"]
    for outcome in outcomes:
        # what to do about it stands on stderr, once
        status = "done" if outcome.error is None else shorten(f"failed: {outcome.error}", WIDTH)
        lines.append(f"{outcome.model:<24}{outcome.case:>5}{outcome.seconds:>9.0f}  {status}")
        lines += [f"{'':<40}{finding}" for finding in outcome.findings]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saerepgeo reproduce",
        description="Run the cases of the paper and print one closing table.",
        allow_abbrev=False,
    )
    models = "names of overlays in configs/models/, or paths of such files"
    parser.add_argument("--models", nargs="+", default=["smollm2-135m"], help=models)
    parser.add_argument("--concepts", nargs="+", help="default: those of each case's config")
    parser.add_argument("--cases", nargs="+", type=int, choices=(1, 2, 3), default=[1, 2, 3])
    parser.add_argument("--output", default=DEFAULT_OUTPUT, help="folder of all results")
    parser.add_argument("--configs", help="folder of case1.yaml … and models/")
    return parser


def _config_folder(given: str | None) -> Path:
    """Return the folder given, else `configs` here, else that of the checkout we run from."""
    here, checkout = Path("configs"), Path(__file__).parents[2] / "configs"
    for folder in [Path(given)] if given else [here, checkout]:
        if (folder / "case1.yaml").is_file():
            return folder
    raise ValueError(
        f"no case1.yaml in {given or 'configs/'}: an installed package holds no configs; run in a "
        "checkout of the repository, or name its folder by `--configs`"
    )


def _overlay(configs: Path, name: str) -> Path:
    folder = configs / "models"
    for path in (folder / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise ValueError(f"`--models` names {name!r}; there are {known}, or give the path of a YAML")


def _run(
    configs: Path, overlay: Path, case: int, concepts: list[str] | None, output: str
) -> Outcome:
    from saerepgeo.cli import main as run_command

    start, error, status = time.monotonic(), None, 0
    findings: list[str] = []
    with _relocated(configs / f"case{case}.yaml", output) as config:
        args = ["test", "--config", str(config), "--config", str(overlay)]
        if concepts:
            args.append(f"--data.init_args.concepts=[{','.join(concepts)}]")
        try:
            with _quiet():
                status = run_command(args)
            error = f"stopped with exit status {status}" if status else None
            findings = _findings(case, _model_of(config, overlay), concepts, Path(output))
        except (ValueError, OSError, RuntimeError) as failure:
            error = " ".join(str(failure).split()) or type(failure).__name__
        except SystemExit as failure:
            status = failure.code if isinstance(failure.code, int) else 1
            # else the parser has said why on stderr
            error = f"bad configuration (exit status {status})"
    if status > SIGNALLED:
        error = f"stopped by {signal.Signals(status - SIGNALLED).name}"
    return Outcome(overlay.stem, case, time.monotonic() - start, error, findings, status)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to what a case prints itself: Lightning's remarks on its start would come every time."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _relocated(config: Path, output: str) -> Iterator[Path]:
    """Give a config whose paths under `outputs` lie under `output`, every case's its own."""
    content = _moved(read_config(config), output)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / config.name
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        yield path


def _moved(value: Any, output: str) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, output) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, output) for item in value]
    if isinstance(value, str) and Path(value).parts[:1] == (DEFAULT_OUTPUT,):
        return str(Path(output, *Path(value).parts[1:]))
    return value


def _model_of(config: Path, overlay: Path) -> str:
    """Return what the tables call the model of a config under an overlay."""
    merged: dict[str, Any] = {}
    for part in (read_config(config), read_config(overlay)):
        merged |= part.get("data", {}).get("init_args", {})
        merged |= {"name": part.get("model", {}).get("init_args", {}).get("name")}
    return merged["name"] or model_name(merged["lm"], merged["hook_name"])


def _findings(case: int, model: str, concepts: list[str] | None, output: Path) -> list[str]:
    if case == 1:
        return _ranks(output / "case1_stratified_manifold" / "strata.csv", model, concepts)
    if case == 2:
        folder = output / "case2_representation_structure"
        return _structure(folder / "clustering_analysis_results.csv", model, concepts)
    return [f"tables in {output / 'case3_intervention_analysis'}"]


def _ranks(table: Path, model: str, concepts: list[str] | None) -> list[str]:
    lines = []
    spaces: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in read_rows(table):
        about = (row["mode"], row["tolerance"], row["model"])
        if about == ("feature", "eps", model) and (not concepts or row["concept"] in concepts):
            spaces.setdefault((row["noise_scale"], row["space"]), []).append(row)
    for (scale, space), rows in spaces.items():
        counts = [int(row["n_strata"]) for row in rows]
        low, high = min(counts), max(counts)
        span = f"{low}" if low == high else f"{low}–{high}"
        concepts_of = "1 concept" if len(rows) == 1 else f"{len(rows)} concepts"
        lines.append(f"{space}: {span} strata over {scale} noise ({concepts_of})")
    return lines


def _structure(table: Path, model: str, concepts: list[str] | None) -> list[str]:
    lines = []
    for row in read_rows(table):
        if row["Model"] != model or (concepts and row["Concept"] not in concepts):
            continue
        p = row.get("Procrustes Disparity p")
        lines.append(
            f"{row['Concept']}, {row['Protocol']}: clusters {_short(row, 'Clusters')}, dimension "
            f"{_short(row, 'Avg Dim')}, Procrustes {float(row['Procrustes Disparity']):.3f}"
            + (f" (p = {float(p):.3f})" if p else "")
        )
    return lines


def _short(row: dict[str, str], name: str) -> str:
    return " → ".join(f"{float(row[f'{name} {side}']):.3g}" for side in ("Resid", "Latents"))
