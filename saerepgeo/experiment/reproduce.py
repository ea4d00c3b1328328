"""`python -m saerepgeo reproduce`: cases 1–3 for the chosen models, and one closing table."""

import logging
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, NamedTuple

import yaml

from saerepgeo.bounds import check_settings
from saerepgeo.callbacks.processes import Stopped
from saerepgeo.cases.analysis import model_name
from saerepgeo.cli.errors import OneLineErrors, nearest
from saerepgeo.experiment.engine import SIGNALLED, Engine, ended_calls
from saerepgeo.report.files import read_rows
from saerepgeo.shipped import CONFIGS
from saerepgeo.yaml_files import read_yaml

DEFAULT_OUTPUT = "outputs"
"""Where the shipped configs write."""
WIDTH = 100
"""Characters of an outcome in the closing table."""


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
    ValueError: the configs are not found, or an unknown model is named.
    """
    parser = OneLineErrors(
        prog="python -m saerepgeo reproduce",
        description="Run the cases of the paper and print one closing table.",
        allow_abbrev=False,
    )
    models = "names of overlays in configs/models/, or paths of such files"
    parser.add_argument("--models", nargs="+", default=["smollm2-135m"], help=models)
    parser.add_argument("--concepts", nargs="+", help="default: those of each case's config")
    parser.add_argument("--cases", nargs="+", type=Literal[1, 2, 3], default=[1, 2, 3])
    parser.add_argument("--output", default=DEFAULT_OUTPUT, help="folder of all results")
    parser.add_argument(
        "--configs",
        help="folder of case1.yaml … and models/; default: configs here, else the shipped ones",
    )
    parser.add_class_arguments(Engine)
    chosen = parser.parse_args(list(args))
    configs = _config_folder(chosen.configs)
    runs = list(product([_overlay(configs, name) for name in chosen.models], chosen.cases))
    settings = {field.name: chosen[field.name] for field in fields(Engine)}
    check_settings(Engine, settings)

    def calls() -> Iterator[tuple[Any, ...]]:
        for overlay, case in runs:
            print(f"{overlay.stem}, case {case} …", flush=True)
            yield configs, overlay, case, chosen.concepts, chosen.output

    outcomes: dict[int, Outcome] = {}
    try:
        for ended in ended_calls(_run, calls(), Engine(**settings)):
            overlay, case = runs[ended.number]
            lost = Outcome(overlay.stem, case, 0.0, str(ended.error), [])
            outcome = ended.value or lost
            _tell(outcome, [before.error for before in outcomes.values()])
            outcomes[ended.number] = outcome
            if outcome.status > SIGNALLED:
                break
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return _conclude(outcomes, stopped.status)
    return _conclude(outcomes, max((each.status for each in outcomes.values()), default=0))


def _tell(outcome: Outcome, errors: list[str | None]) -> None:
    if outcome.error is not None:
        said = outcome.error if outcome.error not in errors else "the same"
        print(f"{outcome.model}, case {outcome.case}: {said}", file=sys.stderr)


def _conclude(outcomes: dict[int, Outcome], status: int) -> int:
    in_order = [outcomes[number] for number in sorted(outcomes)]
    print(closing_table(in_order))
    return status if status > SIGNALLED else int(any(each.error for each in in_order))


def closing_table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as lines of text: one a model and case, its findings below."""
    lines = [f"{'model':<24}{'case':>5}{'seconds':>9}  outcome"]
    for outcome in outcomes:
        # what to do about it stands on stderr, once
        status = "done" if outcome.error is None else shorten(f"failed: {outcome.error}", WIDTH)
        lines.append(f"{outcome.model:<24}{outcome.case:>5}{outcome.seconds:>9.0f}  {status}")
        lines += [f"{'':<40}{finding}" for finding in outcome.findings]
    return "\n".join(lines)


def _config_folder(given: str | None) -> Path:
    """Return the folder given, else `configs` here, else the shipped one."""
    for folder in [Path(given)] if given else [Path("configs"), CONFIGS]:
        if (folder / "case1.yaml").is_file():
            return folder
    raise ValueError(
        f"no case1.yaml in {given}: `--configs` must be a folder of case1.yaml … and models/, or "
        "left out for the shipped one"
    )


def _overlay(configs: Path, name: str) -> Path:
    folder = configs / "models"
    for path in (folder / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    near = nearest(name, known)
    hint = f": did you mean {near}?" if near else ""
    names = ", ".join(known)
    raise ValueError(
        f"`--models` names {name!r}; there are {names}, or give the path of a YAML{hint}"
    )


def _run(
    configs: Path, overlay: Path, case: int, concepts: list[str] | None, output: str
) -> Outcome:
    from saerepgeo.cli import OneDeviceCLI
    from saerepgeo.cli import main as run_command

    start, error, status = time.monotonic(), None, 0
    findings: list[str] = []
    config = read_yaml(configs / f"case{case}.yaml")
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)  # its remarks on its start would come every time
    with tempfile.TemporaryDirectory() as folder:
        moved = Path(folder) / f"case{case}.yaml"
        text = yaml.safe_dump(_moved(config, output), sort_keys=False)
        moved.write_text(text, encoding="utf-8")
        args = ["test", "--config", str(moved), "--config", str(overlay)]
        if concepts:
            args.append(f"--data.init_args.concepts=[{','.join(concepts)}]")
        try:
            status = run_command(args, OneDeviceCLI)
            error = f"stopped with exit status {status}" if status else None
            model = _model_of(config, read_yaml(overlay))
            findings = list(_findings(case, model, concepts, Path(output)))
        except (ValueError, OSError, RuntimeError) as failure:
            error = " ".join(str(failure).split()) or type(failure).__name__
        except SystemExit as failure:
            status = failure.code if isinstance(failure.code, int) else 1
            # else the parser has said why on stderr
            error = f"bad configuration (exit status {status})"
        finally:
            logger.setLevel(level)
    if status > SIGNALLED:
        error = f"stopped by {signal.Signals(status - SIGNALLED).name}"
    return Outcome(overlay.stem, case, time.monotonic() - start, error, findings, status)


def _moved(value: Any, output: str) -> Any:
    """Return part of a config with its paths under `outputs` under `output`."""
    if isinstance(value, dict):
        return {key: _moved(item, output) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, output) for item in value]
    if isinstance(value, str) and Path(value).parts[:1] == (DEFAULT_OUTPUT,):
        return str(Path(output, *Path(value).parts[1:]))
    return value


def _model_of(*configs: dict[str, Any]) -> str:
    """Return what the tables call the model of configs, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for part in configs:
        merged |= part.get("data", {}).get("init_args", {})
        merged |= {"name": part.get("model", {}).get("init_args", {}).get("name")}
    return merged["name"] or model_name(merged["lm"], merged["hook_name"])


def _findings(case: int, model: str, concepts: list[str] | None, output: Path) -> Iterator[str]:
    if case == 1:
        spaces: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row in read_rows(output / "case1_stratified_manifold" / "strata.csv"):
            about = (row["mode"], row["tolerance"], row["model"])
            if about == ("feature", "eps", model) and (not concepts or row["concept"] in concepts):
                spaces[row["noise_scale"], row["space"]].append(int(row["n_strata"]))
        for (scale, space), counts in spaces.items():
            low, high, n = min(counts), max(counts), len(counts)
            span = f"{low}" if low == high else f"{low}–{high}"
            concepts_of = "1 concept" if n == 1 else f"{n} concepts"
            yield f"{space}: {span} strata over {scale} noise ({concepts_of})"
    elif case == 2:
        folder = output / "case2_representation_structure"
        for row in read_rows(folder / "clustering_analysis_results.csv"):
            if row["Model"] != model or (concepts and row["Concept"] not in concepts):
                continue
            clusters, dimension = (
                " → ".join(f"{float(row[f'{name} {side}']):.3g}" for side in ("Resid", "Latents"))
                for name in ("Clusters", "Avg Dim")
            )
            p = row.get("Procrustes Disparity p")
            yield (
                f"{row['Concept']}, {row['Protocol']}: clusters {clusters}, dimension {dimension}, "
                f"Procrustes {float(row['Procrustes Disparity']):.3f}"
                + (f" (p = {float(p):.3f})" if p else "")
            )
    else:
        yield f"tables in {output / 'case3_intervention_analysis'}"
