"""A local hub, and huggingface_hub's own client pointed at it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import HubServer
from inference_only_releases import write_inference_only_releases
from small_releases import D_IN, D_SAE, write_releases


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    return write_releases(root) | write_inference_only_releases(root, D_IN, D_SAE)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub-cache")


@pytest.fixture
def online(server: HubServer, connect: Callable[[Path], None], shared_cache: Path) -> HubServer:
    """The server, and a client that keeps what other tests have fetched."""
    connect(shared_cache)
    return server
