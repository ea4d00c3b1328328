"""The disk cache: bounded, honest about its size, and never the reason why a run fails."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from saerepgeo.cli import cache as cli_cache
from saerepgeo.cli.cache import sizes_by_kind
from saerepgeo.data import cache
from saerepgeo.data.cache import (
    STREAM_LIMIT,
    activations_folder,
    cached_tensors,
    keeps_stream,
)

MIB = 2**20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path))
    return tmp_path


def store(name: str, n_mib: int = 1, kind: str = "points/1") -> list[str]:
    """Return the names that had to be computed: the given one, or none."""
    computed: list[str] = []

    def compute() -> dict[str, torch.Tensor]:
        computed.append(name)
        return {"x": torch.zeros(n_mib * MIB // 4)}

    cached_tensors({"kind": kind, "name": name}, compute)
    return computed


def age(seconds: int) -> None:
    """Make every file that much older."""
    for path in activations_folder().iterdir():
        used = path.stat().st_mtime - seconds
        os.utime(path, (used, used))


def test_what_was_used_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE_GIB", str(3.5 / 1024))
    for name in ("a", "b", "c"):
        store(name)
        age(10)
    assert store("a") == []  # used again
    assert store("d") == ["d"]
    assert [store(name) for name in ("a", "c", "d")] == [[], [], []]
    assert store("b") == ["b"]


def test_the_newest_stays_even_where_it_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE_GIB", "0.001")
    store("a", n_mib=3)
    assert store("a", n_mib=3) == []


@pytest.mark.parametrize("value", ["much", "nan", "inf", "-1", "1e400"])
def test_a_limit_that_is_no_number_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE_GIB", value)
    expected = f"`SAEREPGEO_CACHE_GIB` must be a number of GiB, at least 0, got `{value}`"
    with pytest.raises(ValueError, match=expected):
        store("a")


@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_file_counts_as_absent(left: int) -> None:
    store("a")
    path = next(activations_folder().iterdir())
    path.write_bytes(path.read_bytes()[:left])
    with pytest.warns(UserWarning, match="is damaged .*; computed anew"):
        assert store("a") == ["a"]
    assert store("a") == []


def test_a_full_disk_is_a_warning_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_UNKEPT", set())
    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.warns(UserWarning, match="activations are not kept in .*No space left"):
        assert store("a") == ["a"]
    assert store("b") == ["b"]  # said once
    assert not list(activations_folder().iterdir())


def test_sizes_are_shown_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    store("a", 2)
    store("b", 1)
    store("c", 1, kind="concept/1")
    found = sizes_by_kind()
    assert [(kind, n) for kind, (n, _) in found.items()] == [("points", 2), ("concept", 1)]
    assert sum(size for _, size in found.values()) == cache.cache_size()
    assert cli_cache.main([]) == 0
    shown = capsys.readouterr().out
    assert "4.0 MiB, 3 files (at most 8 GiB)" in shown
    assert "points: 3.0 MiB in 2" in shown


@pytest.mark.parametrize(
    ("wanted", "n_bytes", "expected"),
    [
        ("auto", STREAM_LIMIT, True),
        ("auto", STREAM_LIMIT + 1, False),
        ("auto", None, False),
        (True, None, True),
        (True, 2 * STREAM_LIMIT, True),
        (False, 1, False),
    ],
)
def test_a_short_runs_stream_is_kept(wanted: Any, n_bytes: int | None, expected: bool) -> None:
    assert keeps_stream(wanted, n_bytes) is expected


def test_a_small_cache_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE_GIB", "1")
    assert not keeps_stream("auto", STREAM_LIMIT)
    with pytest.raises(ValueError, match="would keep 2 GiB, more than the cache may hold"):
        keeps_stream(True, 2 * STREAM_LIMIT)
