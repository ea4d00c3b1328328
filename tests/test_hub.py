"""Models and SAEs from a hub, through huggingface_hub's own client: layouts, cases, faults."""

import calendar
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hub_server import Fault, HubServer
from small_releases import (
    D_IN,
    GEMMA,
    GPT2,
    GPT2_SAE,
    PYTHIA,
    PYTHIA_SAE,
    K,
    write_releases,
)

from saerepgeo.lm import FrozenLM
from saerepgeo.lm_sources import load_config, load_model, load_tokenizer
from saerepgeo.sae.load import load_sae, read_source_config
from saerepgeo.types import SparseLatents

CONFIGS = Path(__file__).parents[1] / "configs"
RELEASES = {
    "gpt2-small": ("gpt2-small-resid-post-v5-32k", "blocks.11.hook_resid_post"),
    "pythia-70m": ("pythia-70m-deduped-res-sm", "blocks.5.hook_resid_post"),
    "gemma-2-2b": (
        "sae_bench_gemma-2-2b_topk_width-2pow16_date-1109",
        "blocks.19.hook_resid_post__trainer_0",
    ),
}
DAYS = tuple(calendar.day_name)
MONTHS = tuple(calendar.month_name[1:])
WEIGHTS = "model.safetensors"
FINAL_NORMS = ("ln_f", "final_layer_norm", "norm")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_releases(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def server(releases: dict[str, Path]) -> Iterator[HubServer]:
    with HubServer(releases) as running:
        yield running


@pytest.fixture
def connect(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return what points the client at the server, with a given cache, as if just started."""

    def point(cache: Path) -> None:
        server.faults.clear()
        server.gated.clear()
        server.requests.clear()
        target = "huggingface_hub.constants."
        monkeypatch.setattr(target + "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(target + "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(target + "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(target + "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(target + "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(target + "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setattr(target + "DOWNLOAD_CHUNK_SIZE", 1024)  # the files here are small
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        # the client waits a second or more before each new try
        waitless = SimpleNamespace(**(vars(time) | {"sleep": lambda seconds: None}))
        monkeypatch.setattr("huggingface_hub.file_download.time", waitless)
        monkeypatch.setattr("huggingface_hub.utils._http.time", waitless)
        monkeypatch.delenv("HF_TOKEN", raising=False)

    return point


@pytest.fixture
def hub(server: HubServer, connect: Callable[[Path], None], tmp_path: Path) -> HubServer:
    """The server, and a client whose cache is empty."""
    connect(tmp_path / "hub")
    return server


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub-cache")


@pytest.fixture
def online(server: HubServer, connect: Callable[[Path], None], shared_cache: Path) -> HubServer:
    """The server, and a client that keeps what other tests have fetched."""
    connect(shared_cache)
    return server


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


def run_case(monkeypatch: pytest.MonkeyPatch, case: str, model: str, *arguments: str) -> None:
    from saerepgeo.cli import main

    command = "fit" if case == "case3" else "test"
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
    )
    before = load_sae(*RELEASES[model])
    after = load_sae(path=tmp_path / "outputs/case3_intervention_analysis/sae")
    assert after.architecture == before.architecture
    assert after.metadata["hook_name"] == before.metadata["hook_name"]
    moved = (after.sae.W_dec - before.sae.W_dec).detach().abs().max()
    assert 0 < float(moved) < 0.1


@pytest.mark.parametrize("model", RELEASES)
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
        "--model.init_args.n_draws=1",
        "--model.init_args.noise_levels=[0.0, 1.0]",
        "--model.init_args.noise_scales=[absolute]",
        "--data.init_args.concepts=[days]",
    )
    table = next(tmp_path.rglob("rank_by_noise.csv")).read_text()
    assert ",days,latents,feature," in table


@pytest.mark.parametrize("model", RELEASES)
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
        "--model.init_args.protocols=[sound]",
        "--model.init_args.n_permutations=9",
        "--model.init_args.n_nulls=2",
        "--model.init_args.n_subsamples=2",
        "--data.init_args.concepts=[days]",
    )
    table = next(tmp_path.rglob("clustering_analysis_results.csv")).read_text()
    assert "\ndays," in table


@pytest.mark.parametrize(("name", "layers"), [(GPT2, 12), (PYTHIA, 6), (GEMMA, 26)])
def test_the_last_layer_is_read_before_the_final_norm(
    online: HubServer, name: str, layers: int
) -> None:
    lm = FrozenLM.load(name, f"blocks.{layers - 1}.hook_resid_post", "float32")
    tokens, _ = lm.tokenizer.encode(["January comes after the rain."])
    with torch.no_grad():
        states = load_model(name)(tokens, output_hidden_states=True).hidden_states
    assert len(states) == layers + 1
    residuals = lm.residuals(tokens)
    norm = next(m for n, m in lm._plain.base_model.named_modules() if n in FINAL_NORMS)
    with torch.no_grad():
        torch.testing.assert_close(norm(residuals), states[-1])


@pytest.mark.parametrize("model", RELEASES)
def test_metadata_come_without_weights(hub: HubServer, model: str) -> None:
    config = read_source_config(*RELEASES[model])
    assert config["d_in"] == D_IN
    assert config["metadata"]["hook_name"] == RELEASES[model][1].split("__")[0]
    assert not hub.bodies(".safetensors")
    assert not hub.bodies(".pt")


def test_layouts_mean_what_their_origin_means(online: HubServer) -> None:
    openai = load_sae(*RELEASES["gpt2-small"])
    assert (openai.architecture, openai.normalization, openai.sae.cfg.k) == (
        "topk",
        "layer_norm",
        K,
    )
    assert load_sae(*RELEASES["pythia-70m"]).architecture == "standard"
    gemma = load_sae(*RELEASES["gemma-2-2b"])
    assert (gemma.architecture, gemma.sae.cfg.k) == ("topk", K)


@pytest.mark.parametrize("model", RELEASES)
@torch.no_grad()
def test_releases_equal_saelens_own_loading(online: HubServer, model: str) -> None:
    from saerepgeo.sae.lens import sae_lens

    theirs = sae_lens().SAE.from_pretrained(*RELEASES[model])
    ours = load_sae(*RELEASES[model]).eval()
    points = 3 * torch.randn(20, D_IN, generator=torch.Generator().manual_seed(0)) + 0.5
    latents, normalization = ours.encode(points)
    expected = theirs.encode(points)
    dense = latents.to_dense() if isinstance(latents, SparseLatents) else latents
    tight = {"rtol": 0.0, "atol": 1e-6 * float(expected.max())}
    torch.testing.assert_close(dense, expected, **tight)
    tight = {"rtol": 0.0, "atol": 1e-6 * float(points.abs().max())}
    torch.testing.assert_close(
        ours.decode(latents, normalization), theirs.decode(expected), **tight
    )


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


def test_what_is_cached_serves_without_the_hub(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_sae(*RELEASES["gpt2-small"])
    load_model(GPT2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    load_sae(*RELEASES["gpt2-small"])
    load_model(GPT2)
    assert not hub.requests


def load_lm(_: HubServer) -> None:
    load_model(GPT2)


def load_release(_: HubServer) -> None:
    load_sae(*RELEASES["gpt2-small"])


FETCHES = {"lm": (load_lm, GPT2, WEIGHTS), "sae": (load_release, GPT2_SAE, "weights.safetensors")}


@pytest.fixture(params=FETCHES)
def fetch(request: pytest.FixtureRequest) -> tuple[Callable[[HubServer], None], str, str]:
    """What loads a model or an SAE, its repository, and the end of its weights' file name."""
    return FETCHES[request.param]


@contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises((ValueError, OSError), match=message) as error:
        yield
    assert "\n" not in str(error.value)


def assert_no_half_file(cache: Path) -> None:
    assert not list(cache.rglob("*.incomplete"))
    from saerepgeo.downloads import discard_damaged

    for folder in cache.glob("models--*"):
        assert discard_damaged(folder.name.removeprefix("models--").replace("--", "/")) == []


def test_gated_names_the_page_and_the_login(
    hub: HubServer, fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, repository, _ = fetch
    hub.gated[repository] = "hf_right"
    with refused(f"gated: accept its terms at https://huggingface.co/{repository}, then run `hf "):
        load(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with refused("gated"):
        load(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    load(hub)
    sent = [r.headers.get("Authorization") for r in hub.requests if r.path.startswith("/cdn/")]
    assert sent
    assert set(sent) == {None}  # the token stays with the hub


def test_login_of_the_hub_itself_is_used(hub: HubServer, tmp_path: Path) -> None:
    hub.gated[GEMMA] = "hf_right"
    for load in (load_config, load_tokenizer, load_model):
        with refused(f"model `{GEMMA}` is gated"):
            load(GEMMA)
    (tmp_path / "hub").mkdir(exist_ok=True)
    (tmp_path / "hub" / "token").write_text("hf_right")
    assert load_config(GEMMA).num_hidden_layers == 26


def test_unknown_model(hub: HubServer) -> None:
    for load in (load_config, load_tokenizer, load_model):
        with refused("`nobody/nothing` is not on the hub, or is private; check the spelling"):
            load("nobody/nothing")


def test_unknown_sae(hub: HubServer, releases: dict[str, Path]) -> None:
    with refused("`nobody/nothing/layer` is not on the hub, or is private"):
        load_sae("nobody/nothing", "layer")
    with refused("lacks a file"):
        load_sae(PYTHIA_SAE, "4-res-sm")


def test_connection_dropped_once_is_taken_up_where_it_broke(hub: HubServer, fetch: Any) -> None:
    load, _, file = fetch
    hub.faults[file] = Fault("drop", times=1)
    load(hub)
    ranges = [request.headers.get("Range") for request in hub.bodies(file)]
    assert ranges[0] is None
    assert ranges[1].startswith("bytes=")
    assert int(ranges[1][6:-1]) > 0


def test_connection_dropped_for_good(hub: HubServer, fetch: Any, tmp_path: Path) -> None:
    load, _, file = fetch
    hub.faults[file] = Fault("drop", times=1000)
    with refused("was cut off while it was fetched; run again"):
        load(hub)
    assert_no_half_file(tmp_path)
    hub.faults.clear()
    load(hub)


def test_file_shorter_than_announced(hub: HubServer, fetch: Any, tmp_path: Path) -> None:
    load, _, file = fetch
    hub.faults[file] = Fault("short", times=1)
    with refused("was cut off while it was fetched; run again"):
        load(hub)
    assert_no_half_file(tmp_path)
    load(hub)


def test_content_other_than_announced(hub: HubServer, fetch: Any, tmp_path: Path) -> None:
    """Of the right length and readable, so that only the sum tells."""
    load, _, file = fetch
    hub.faults[file] = Fault("corrupt", times=1)
    with refused("arrived damaged.*has been removed, run again"):
        load(hub)
    assert_no_half_file(tmp_path)
    load(hub)


def test_damaged_json_is_told_from_a_bad_name(hub: HubServer) -> None:
    hub.faults["config.json"] = Fault("corrupt", times=1)
    with refused(f"`{GPT2}` arrived damaged"):
        load_config(GPT2)
    load_config(GPT2)


def test_slow_server(hub: HubServer, fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load, _, file = fetch
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.faults[file] = Fault("stall", times=3, seconds=0.3)
    load(hub)
    assert len(hub.bodies(file)) > 1  # the first was given up


def test_server_that_never_answers(
    hub: HubServer, fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, _, _ = fetch
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.05)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.05)
    hub.faults["config.json"] = hub.faults["cfg.json"] = Fault("stall", times=100, seconds=0.3)
    with refused("could not be fetched: it is not in the local cache and the hub is out of reach"):
        load(hub)


def test_hub_that_is_down(hub: HubServer, fetch: Any) -> None:
    load, _, _ = fetch
    hub.faults["config.json"] = hub.faults["cfg.json"] = Fault("unavailable", times=1000)
    with refused("the hub is out of reach"):
        load(hub)
    hub.faults.clear()
    load(hub)


def test_disk_full(hub: HubServer, fetch: Any, tmp_path: Path) -> None:
    """Files may not grow beyond 4 kB: the disk says so in the middle of a file."""
    load, _, _ = fetch
    load_config(GPT2)
    read_source_config(*RELEASES["gpt2-small"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with refused("did not fit on the disk; free some space"):
            load(hub)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_no_half_file(tmp_path)
    load(hub)
