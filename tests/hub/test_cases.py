"""All three cases on each released model and SAE, by the shipped configurations."""

import calendar
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from inference_only_releases import INFERENCE_ONLY_RELEASES
from small_releases import RELEASES

from saerepgeo.sae.io.load import load_sae

CONFIGS = Path(__file__).parents[2] / "configs"
DAYS = tuple(calendar.day_name)
MONTHS = tuple(calendar.month_name[1:])


def releases(in_gate: str) -> list[Any]:
    """Return the names of all releases; those but one are left to `make test-faults`."""
    others = [pytest.param(n, marks=pytest.mark.thorough) for n in RELEASES if n != in_gate]
    return [in_gate, *others]


SHORT_CASE_1 = (
    "--model.init_args.n_draws=1",
    "--model.init_args.noise_levels=[0.0, 1.0]",
    "--model.init_args.noise_scales=[absolute]",
)
SHORT_CASE_2 = (
    "--model.init_args.protocols=[sound]",
    "--model.init_args.n_permutations=9",
    "--model.init_args.n_nulls=2",
    "--model.init_args.n_subsamples=2",
)


def overrides(text_file: Path, folder: Path) -> list[str]:
    """Small sizes for a case's shipped configuration."""
    places = ("first", "second", "third")
    prompts = {
        "days": [f"{day} is the {place} day" for day in DAYS for place in places],
        "months": [f"the {place} month, {month}" for month in MONTHS for place in places],
    }
    (folder / "prompts.json").write_text(json.dumps(prompts))
    data = {
        "prompts": str(folder / "prompts.json"),
        "lm_dtype": "float32",
        "text": str(text_file),
        "concepts": "[months, days]",
        "batch_size": 64,
        "context_size": 16,
        "window_steps": 2,
        "lm_batch_size": 4,
        "n_lanes": 4,
        "validation_contexts": 8,
    }
    trainer = {"accelerator": "cpu", "enable_progress_bar": "false", "logger": "false"}
    return [
        *(f"--data.init_args.{name}={value}" for name, value in data.items()),
        *(f"--trainer.{name}={value}" for name, value in trainer.items()),
        "--trainer.enable_model_summary=false",
    ]


def run_case(
    monkeypatch: pytest.MonkeyPatch, case: str, model: str, *arguments: str, command: str = "test"
) -> None:
    from saerepgeo.cli import main

    configs = [f"--config={CONFIGS / case}.yaml", f"--config={CONFIGS / 'models' / model}.yaml"]
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's use of it
    monkeypatch.setattr("sys.argv", ["saerepgeo", command, *configs, *arguments])
    main()


@pytest.mark.parametrize("model", RELEASES)
def test_case_3_fine_tunes_the_released_sae(
    online: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text_file: Path,
    model: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run_case(
        monkeypatch,
        "case3",
        model,
        *overrides(text_file, tmp_path),
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=1",
        "--trainer.num_sanity_val_steps=0",
        command="fit",
    )
    before = load_sae(*RELEASES[model])
    after = load_sae(path=tmp_path / "outputs/case3_intervention_analysis/sae")
    assert after.architecture == before.architecture
    assert after.metadata["hook_name"] == before.metadata["hook_name"]
    moved = (after.sae.W_dec - before.sae.W_dec).detach().abs().max()
    assert 0 < float(moved) < 0.1


@pytest.mark.parametrize("model", releases("gemma-2-2b"))
def test_case_1_on_released_saes(
    online: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text_file: Path,
    model: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run_case(
        monkeypatch,
        "case1",
        model,
        *overrides(text_file, tmp_path),
        *SHORT_CASE_1,
        "--data.init_args.concepts=[days]",
    )
    table = next(tmp_path.rglob("rank_by_noise.csv")).read_text()
    assert ",days,latents,feature," in table


@pytest.mark.parametrize("model", releases("gpt2-small"))
def test_case_2_on_released_saes(
    online: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text_file: Path,
    model: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run_case(
        monkeypatch,
        "case2",
        model,
        *overrides(text_file, tmp_path),
        *SHORT_CASE_2,
        "--data.init_args.concepts=[days]",
    )
    table = next(tmp_path.rglob("clustering_analysis_results.csv")).read_text()
    assert "\ndays," in table


@pytest.mark.thorough
def test_case_3_shifts_the_latents_of_an_sae_with_layer_norm(
    online: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    days = "--data.init_args.concepts=[days]"
    run_case(monkeypatch, "case3", "gpt2-small", *overrides(text_file, tmp_path), days)
    table = next(tmp_path.rglob("intervention_analysis_results_icd_monge.csv")).read_text()
    assert {"paper", "sound"} <= set(table.replace("\n", ",").split(","))


@pytest.mark.parametrize(
    ("case", "table"),
    [pytest.param("case1", "rank_by_noise", marks=pytest.mark.thorough), ("case2", "clustering")],
)
def test_cases_on_a_temporal_release(
    online: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text_file: Path,
    case: str,
    table: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    release, sae_id = INFERENCE_ONLY_RELEASES["temporal"]
    draws = {"case1": SHORT_CASE_1, "case2": SHORT_CASE_2}[case]
    run_case(
        monkeypatch,
        case,
        "gemma-2-2b",
        *overrides(text_file, tmp_path),
        *draws,
        f"--model.init_args.sae.release={release}",
        f"--model.init_args.sae.sae_id={sae_id}",
        f"--data.init_args.hook_name={sae_id}",
        "--data.init_args.concepts=[days]",
    )
    rows = next(tmp_path.rglob(f"{table}*.csv")).read_text().splitlines()
    assert len(rows) > 2
    assert "gemma-2-2b Layer 12" in rows[1]


def test_fit_refuses_what_has_no_training_form_before_it_fetches_weights(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    release, sae_id = INFERENCE_ONLY_RELEASES["temporal"]
    with pytest.raises(
        ValueError, match=r"temporal SAE, which.*has no training form: `fit` cannot"
    ):
        run_case(
            monkeypatch,
            "case3",
            "gemma-2-2b",
            *overrides(text_file, tmp_path),
            f"--model.init_args.sae.release={release}",
            f"--model.init_args.sae.sae_id={sae_id}",
            f"--data.init_args.hook_name={sae_id}",
            command="fit",
        )
    assert not hub.bodies(".safetensors")


@pytest.mark.thorough
def test_the_command_line_refuses_before_it_fetches_weights(
    server: HubServer, connect: Callable[[Path], None], tmp_path: Path, text_file: Path
) -> None:
    connect(tmp_path)  # clears what the server remembers
    configs = [CONFIGS / "case1.yaml", CONFIGS / "models" / "gpt2-small.yaml"]
    environment = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
    }
    environment.pop("HF_HUB_CACHE", None)
    hook = "--data.init_args.hook_name=blocks.10.hook_resid_post"
    arguments = [*(f"--config={c}" for c in configs), *overrides(text_file, tmp_path), hook]
    done = subprocess.run(
        [sys.executable, "-m", "saerepgeo", "test", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "error: SAE and data module disagree: the SAE belongs to hook `blocks.11"
    )
    assert "Traceback" not in done.stderr
    assert server.bodies("cfg.json")
    assert not server.bodies(".safetensors")
