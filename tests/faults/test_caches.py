"""Whatever happened to the cache: the same figures, a warning that names the file, and no end."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from saerepgeo.cli import cache as cli_cache
from saerepgeo.data import ActivationDataModule, cache
from saerepgeo.data.cache import activations_folder, cached_tensors
from saerepgeo.files import LEFT_AFTER, _beside

KEY = {"kind": "points/1", "name": "a"}
N_ROWS = 64


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_UNKEPT", set())
    return tmp_path / "cache"


def computed() -> dict[str, torch.Tensor]:
    rows = torch.arange(N_ROWS * 8.0).reshape(N_ROWS, 8)
    return {"x": rows.bfloat16(), "mask": rows[:, 0] > 9, "n": torch.tensor(3), "none": rows[:0]}


def stored(key: dict[str, Any] = KEY) -> Path:
    """Keep the tensors of `key`; return the file."""
    before = set(activations_folder().glob("*"))
    cached_tensors(key, computed)
    (path,) = set(activations_folder().glob("*")) - before
    return path


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def changed(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Any:
    """Return what writes other tensors with the metadata of the file."""

    def spoil(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        save_file(change(load_file(path)), path, metadata)

    return spoil


def put(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def of_another_key(path: Path) -> None:
    path.write_bytes(stored({"kind": "points/1", "name": "b"}).read_bytes())


def without_metadata(path: Path) -> None:
    save_file(load_file(path), path)


DAMAGES = {
    "empty": put(lambda _: b""),
    "cut in the header": put(lambda b: b[:100]),
    "cut in the data": put(lambda b: b[:-1]),
    "appended to": put(lambda b: b + b"more"),
    "zeros": put(lambda b: bytes(len(b))),
    "zeros behind the header": put(lambda b: b[:-1024] + bytes(1024)),
    "rubbish": put(lambda b: b"rubbish" * 99),
    "bit of the first number": put(lambda b: flipped(b, len(b) - N_ROWS * 16 - N_ROWS - 8)),
    "bit of the last number": put(lambda b: flipped(b, len(b) - 1)),
    "bit of the key": put(lambda b: b.replace(b"points/1", b"points/3", 1)),
    "another type": put(lambda b: b.replace(b'"BF16"', b'"F16" ', 1)),
    "another name": put(lambda b: b.replace(b'"mask"', b'"musk"', 1)),
    "half of the rows": changed(lambda t: t | {"x": t["x"][: N_ROWS // 2].clone()}),
    "rows in another order": changed(lambda t: t | {"x": t["x"].flip(0).contiguous()}),
    "another shape": changed(lambda t: t | {"x": t["x"].reshape(8, N_ROWS)}),
    "one tensor less": changed(lambda t: {"x": t["x"]}),
    "one tensor more": changed(lambda t: t | {"y": torch.ones(1)}),
    "tensors of another key": of_another_key,
    "no metadata": without_metadata,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_computed_anew_and_named(damage: str) -> None:
    path = stored()
    DAMAGES[damage](path)
    with pytest.warns(UserWarning, match="damaged") as said:
        got = cached_tensors(KEY, computed)
    assert [str(path) in str(w.message) and "\n" not in str(w.message) for w in said] == [True]
    expected = computed()
    assert list(got) == list(expected)
    assert all(got[name].equal(expected[name]) for name in expected)
    again = cached_tensors(KEY, lambda: pytest.fail("it was not mended"))
    assert all(again[name].equal(expected[name]) for name in expected)


def test_every_bit_of_a_small_file_is_checked() -> None:
    path = stored()
    whole, expected = path.read_bytes(), computed()
    for at in range(0, len(whole), 23):
        path.write_bytes(flipped(whole, at))
        with pytest.warns(UserWarning, match="damaged"):
            got = cached_tensors(KEY, computed)
        assert all(got[name].equal(expected[name]) for name in expected)


def streamed(tiny_data: dict[str, Any], n: int = 5) -> list[torch.Tensor]:
    module = ActivationDataModule(**tiny_data, cache_stream=True)
    module.setup("fit")
    return [batch.residuals for batch in islice(module.train_dataloader(), n)]


@pytest.mark.parametrize("kind", ["tokens", "background points", "concept activations"])
def test_a_run_over_a_damaged_cache_sees_the_same_points(
    kind: str, root: Path, tiny_data: dict[str, Any]
) -> None:
    expected = streamed(tiny_data)
    paths = [p for p in activations_folder().iterdir() if cli_cache.kind_of(p) == kind]
    assert paths
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[:-32] + bytes(32))
    with pytest.warns(UserWarning, match="damaged") as said:
        got = streamed(tiny_data)
    assert {path for path in paths for w in said if str(path) in str(w.message)} >= {paths[0]}
    assert all(map(torch.equal, got, expected))
    assert all(map(torch.equal, streamed(tiny_data), expected))


def test_tokens_are_bounded_shown_and_cleared(
    tiny_data: dict[str, Any], capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    streamed(tiny_data)
    assert cli_cache.main([]) == 0
    assert "  tokens: " in capsys.readouterr().out
    (root / "tokens").mkdir()
    (root / "tokens" / f"{0:032x}.uint32").write_bytes(bytes(2**20))  # of a former version
    size = cache.cache_size()
    assert size > 2**20
    assert cli_cache.main(["--clear"]) == 0
    assert f"cleared {size / 2**20:.1f} MiB" in capsys.readouterr().out
    assert cache.cache_size() == 0


def test_a_text_evicted_while_it_is_read_goes_on(
    tiny_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = streamed(tiny_data)
    cache.clear_cache()
    module = ActivationDataModule(**tiny_data, cache_stream=True)
    module.setup("fit")
    batches = iter(module.train_dataloader())
    monkeypatch.setenv("SAEREPGEO_CACHE_GIB", "1e-7")  # a hundred bytes: only the newest stays
    got = [next(batches).residuals for _ in expected]
    assert all(map(torch.equal, got, expected))
    assert len(list(activations_folder().iterdir())) == 1


def test_clearing_beside_a_run_harms_neither(tiny_data: dict[str, Any]) -> None:
    expected = streamed(tiny_data, 7)
    module = ActivationDataModule(**tiny_data, cache_stream=True)
    module.setup("fit")
    for batch, residuals in zip(module.train_dataloader(), expected, strict=False):
        assert batch.residuals.equal(residuals)
        cache.clear_cache()


def test_what_is_read_outlives_its_file() -> None:
    stored()
    got = cached_tensors(KEY, computed)
    cache.clear_cache()
    assert got["x"].equal(computed()["x"])


WRITER = """
import sys, time, torch
from saerepgeo.data.cache import cached_tensors
rows = torch.arange(2.0**16)
for number in range(int(sys.argv[1])):
    time.sleep(max(0, float(sys.argv[2]) - time.time()))
    key = {"kind": "points/1", "number": number}
    got = cached_tensors(key, lambda: {"x": rows + number})["x"]
    assert got.equal(rows + number)
print("done")
"""


def writer(n: int, start: float = 0.0, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WRITER, str(n), str(start)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_write_and_evict_the_same_keys_at_once(root: Path) -> None:
    """At a bound of three files, each deletes what the other writes and reads."""
    both = [writer(40, SAEREPGEO_CACHE_GIB=str(3.5 * 2**18 / 2**30)) for _ in range(2)]
    for process in both:
        said = process.communicate(timeout=120)
        assert said == ("done\n", "")
    sizes = [path.stat().st_size for path in activations_folder().iterdir()]
    assert len(sizes) == 3
    assert all(map(is_whole, activations_folder().iterdir()))


def is_whole(path: Path) -> bool:
    return cli_cache.kind_of(path) == "points"


@pytest.fixture
def unfinished(root: Path) -> dict[str, Path]:
    """Unfinished writes of several sorts, by name; all but "fresh" are two hours old."""
    folder, dead = root / "activations", subprocess.Popen(["true"])
    dead.wait()
    own = _beside(folder / "0.safetensors", "partial")
    names = {
        "dead": own.name.replace(f"+{os.getpid()}.", f"+{dead.pid}."),
        "fresh": own.name.replace(f"+{os.getpid()}.", f"+{dead.pid}.").replace("0.saf", "1.saf"),
        "living": own.name,
        "elsewhere": ".0.safetensors.other-host+1.01234567.partial",
        "elsewhere, long ago": ".1.safetensors.other-host+1.01234567.partial",
        "former version, long ago": ".1.safetensors.01234567.partial",
        "foreign": ".thesis.partial",
    }
    for name, file in names.items():
        (folder / file).mkdir(parents=True)
        (folder / file / ".tmpABC").write_bytes(bytes(1000))
        age = (30 if "long ago" in name else 2) * LEFT_AFTER * (name != "fresh")
        used = (folder / file).stat().st_mtime - age
        os.utime(folder / file, (used, used))
    return {name: folder / file for name, file in names.items()}


def test_what_killed_writers_left_goes_and_nothing_else(unfinished: dict[str, Path]) -> None:
    assert cache.cache_size() == 1000 * len(unfinished)
    stored()
    left = {name for name, path in unfinished.items() if path.exists()}
    assert left == {"fresh", "living", "elsewhere", "foreign"}


def test_showing_the_cache_sweeps_and_counts(
    unfinished: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_cache.main([]) == 0
    assert not unfinished["dead"].exists()
    assert "unfinished: 0.0 MiB in 3" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["0.safetensors", "thesis.txt", "folder/file"])
@pytest.mark.parametrize("content", [b"", b"thesis", bytes(100)])
def test_foreign_files_are_counted_and_harm_nothing(
    name: str, content: bytes, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "activations" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    cached_tensors(KEY, computed)
    assert cli_cache.main([]) == 0
    shown = capsys.readouterr().out
    assert "other: 0.0 MiB in 1" in shown
    assert "points: 0.0 MiB in 1" in shown
    assert cli_cache.main(["--clear"]) == 0
    assert path.read_bytes() == content
    assert cache.cache_size() == len(content)


def test_a_kind_prints_harmlessly(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "activations").mkdir(parents=True)
    for number, key in enumerate(['{"kind": "\\u001b[31mred"}', "[1]", "{", '{"kind": 3}']):
        path = root / "activations" / f"{number}.safetensors"
        save_file({"x": torch.ones(1)}, path, {"key": key})
    assert cli_cache.main([]) == 0
    assert "other: 0.0 MiB in 4" in capsys.readouterr().out


def test_a_bound_of_zero_keeps_nothing(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE_GIB", "0")
    assert cached_tensors(KEY, computed)["x"].equal(computed()["x"])
    assert not root.exists()


def test_a_folder_that_goes_while_the_cache_is_looked_through_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's scratch folder: there when its parent is listed, gone when it is opened."""
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path))
    folder = tmp_path / "activations"
    (folder / "unfinished").mkdir(parents=True)
    (folder / "whole").write_bytes(b"12345")
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("unfinished"):
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert cache.cache_size() == 5
