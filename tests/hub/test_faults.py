"""What goes wrong between a hub and the disk: one line, no half file, and the next try succeeds."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault, HubServer
from small_releases import GEMMA, GPT2, GPT2_SAE, PYTHIA_SAE, RELEASES

from saerepgeo.lm.sources import load_config, load_model, load_tokenizer
from saerepgeo.sae.io.load import load_sae, read_config

WEIGHTS = "model.safetensors"


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
    from saerepgeo.lm.downloads import discard_damaged

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
    read_config(*RELEASES["gpt2-small"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with refused("did not fit on the disk; free some space"):
            load(hub)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_no_half_file(tmp_path)
    load(hub)
